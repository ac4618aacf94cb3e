# What fits it into an existing house: names, what is there already, addresses.

variables {
  project_id = "my-project-123"
  image      = "us-central1-docker.pkg.dev/my-project-123/taxi/taxi:1"
  ui_members = ["user:me@example.com"]
}

run "another_name" {
  command = plan

  variables {
    name = "taxi-dev"
  }

  assert {
    condition = [
      google_cloud_run_v2_job.run[0].name, google_cloud_run_v2_job.daemon[0].name, google_cloud_run_v2_service.webserver[0].name,
      google_sql_database_instance.postgres[0].name, google_storage_bucket.lake[0].name, google_storage_bucket.logs.name,
      google_artifact_registry_repository.images.repository_id, google_service_account.this["runner"].account_id,
      google_secret_manager_secret.database["taxi"].secret_id, google_cloud_scheduler_job.wake[0].name, google_bigquery_dataset.trips[0].dataset_id,
      ] == [
      "taxi-dev-run", "taxi-dev-daemon", "taxi-dev-webserver",
      "taxi-dev-postgres", "my-project-123-taxi-dev-lake", "my-project-123-taxi-dev-logs",
      "taxi-dev", "taxi-dev-runner",
      "taxi-dev-taxi-database", "taxi-dev-wake", "taxi_dev_ny_taxi",
    ]
    error_message = "Two deployments in one project share no name."
  }
  assert {
    condition     = local.database_names == { dagster = "taxi_dev_dagster", taxi = "taxi_dev_taxi" }
    error_message = "Two deployments may share a server."
  }
  assert {
    condition = contains([
      for variable in google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].env : "${variable.name}=${variable.value}"
      if variable.name == "CLOUD_RUN_RUNS_JOB"
    ], "CLOUD_RUN_RUNS_JOB=taxi-dev-run")
    error_message = "The launcher finds the job of its own deployment."
  }
}

run "everything_names_its_project" {
  command = plan

  variables {
    enable_cloud_build   = true
    enable_load_balancer = true
    enable_iap           = true
    enable_private_ip    = true
    domain               = "taxi.example.com"
    log_retention_days   = 90
  }

  assert {
    condition = alltrue([
      for made in [
        google_storage_bucket.lake[0], google_storage_bucket.logs, google_bigquery_dataset.trips[0], google_sql_database_instance.postgres[0],
        google_cloud_run_v2_job.run[0], google_cloud_run_v2_job.daemon[0], google_cloud_run_v2_service.webserver[0],
        google_artifact_registry_repository.images, google_service_account.this["runner"], google_secret_manager_secret.database["taxi"],
        google_compute_network.own[0], google_compute_global_forwarding_rule.ui[0], google_logging_project_sink.own[0],
        google_cloud_scheduler_job.wake[0], google_monitoring_alert_policy.failed_runs[0],
      ] : made.project == "my-project-123"
    ])
    error_message = "A provider from outside may have another project."
  }
}

run "a_database_that_is_there" {
  command = plan

  variables {
    existing_database = "house-postgres"
  }
  override_data {
    target = data.google_sql_database_instance.existing[0]
    values = { name = "house-postgres", connection_name = "my-project-123:us-central1:house-postgres" }
  }

  assert {
    condition     = length(google_sql_database_instance.postgres) == 0 && google_sql_database.this["taxi"].instance == "house-postgres" && google_sql_user.this["dagster"].instance == "house-postgres"
    error_message = "Its databases and users, and no other server."
  }
  assert {
    condition     = one(google_cloud_run_v2_job.run[0].template[0].template[0].volumes[0].cloud_sql_instance[0].instances) == "my-project-123:us-central1:house-postgres"
    error_message = "Runs connect to it."
  }
  assert {
    condition     = alltrue([for grant in google_project_iam_member.database : strcontains(grant.condition[0].expression, "instances/house-postgres'")])
    error_message = "Rights on this one instance."
  }
  assert {
    condition     = length(google_monitoring_alert_policy.database) + length(google_monitoring_alert_policy.failed_backup) == 0
    error_message = "Its owner has alerts."
  }
}

run "a_bucket_and_a_dataset_that_are_there" {
  command = plan

  variables {
    existing_bucket  = "house-lake"
    existing_dataset = "house_trips"
  }

  assert {
    condition     = length(google_storage_bucket.lake) + length(google_bigquery_dataset.trips) == 0
    error_message = "None of its own."
  }
  assert {
    condition     = google_storage_bucket_iam_member.this["runner lake objectUser"].bucket == "house-lake" && google_bigquery_dataset_iam_member.runner.dataset_id == "house_trips"
    error_message = "Runs write there."
  }
  assert {
    condition     = local.env.GCS_BUCKET == "house-lake" && local.env.BIGQUERY_DATASET == "house_trips"
    error_message = "And are told so."
  }
}

run "public_address_without_networks_by_default" {
  command = plan

  assert {
    condition     = google_sql_database_instance.postgres[0].settings[0].ip_configuration[0].ipv4_enabled && length(google_compute_network.own) == 0 && length(google_cloud_run_v2_job.run[0].template[0].template[0].vpc_access) == 0
    error_message = "No network to pay for or to have a quota for."
  }
}

run "a_private_address" {
  command = plan

  variables {
    enable_private_ip = true
  }

  assert {
    condition     = !google_sql_database_instance.postgres[0].settings[0].ip_configuration[0].ipv4_enabled && length(google_compute_network.own) + length(google_service_networking_connection.postgres) == 2
    error_message = "A network of its own, and no public address."
  }
  assert {
    condition = alltrue([
      for access in [
        google_cloud_run_v2_job.run[0].template[0].template[0].vpc_access, google_cloud_run_v2_job.daemon[0].template[0].template[0].vpc_access,
        google_cloud_run_v2_service.webserver[0].template[0].vpc_access,
      ] : access[0].egress == "PRIVATE_RANGES_ONLY"
    ])
    error_message = "Every container gets there, and to the source of the trips without it."
  }
  assert {
    condition     = contains(keys(google_project_service.api), "servicenetworking") && contains(keys(google_project_service.api), "compute")
    error_message = "Its APIs."
  }
}

run "a_private_address_and_a_daemon_that_stays" {
  command = plan

  variables {
    enable_private_ip = true
    daemon            = "always"
  }

  assert {
    condition     = google_cloud_run_v2_worker_pool.daemon[0].template[0].vpc_access[0].egress == "PRIVATE_RANGES_ONLY"
    error_message = "It gets there too."
  }
}

run "a_network_that_is_there" {
  command = plan

  variables {
    enable_private_ip = true
    network           = "projects/house/global/networks/main"
    subnetwork        = "projects/house/regions/us-central1/subnetworks/run"
  }

  assert {
    condition     = length(google_compute_network.own) + length(google_compute_subnetwork.own) + length(google_service_networking_connection.postgres) == 0
    error_message = "None of its own."
  }
  assert {
    condition     = google_sql_database_instance.postgres[0].settings[0].ip_configuration[0].private_network == "projects/house/global/networks/main" && google_cloud_run_v2_job.run[0].template[0].template[0].vpc_access[0].network_interfaces[0].subnetwork == "projects/house/regions/us-central1/subnetworks/run"
    error_message = "The database and its containers are in it."
  }
}

run "a_small_database_by_default" {
  command = plan

  assert {
    condition = (
      google_sql_database_instance.postgres[0].settings[0].tier == "db-g1-small" && google_sql_database_instance.postgres[0].settings[0].availability_type == "ZONAL" &&
      google_sql_database_instance.postgres[0].settings[0].disk_size == 10 && google_sql_database_instance.postgres[0].settings[0].disk_autoresize_limit == 100
    )
    error_message = "Small."
  }
  assert {
    condition     = google_sql_database_instance.postgres[0].settings[0].final_backup_config[0].enabled && google_sql_database_instance.postgres[0].settings[0].final_backup_config[0].retention_days == 30
    error_message = "A backup is left when it goes."
  }
  assert {
    condition     = google_sql_database_instance.postgres[0].settings[0].maintenance_window[0].day == 1 && google_sql_database_instance.postgres[0].settings[0].maintenance_window[0].hour == 8
    error_message = "Maintenance at night in New York."
  }
  assert {
    condition     = !contains(google_sql_database_instance.postgres[0].settings[0].database_flags[*].name, "cloudsql.iam_authentication") && length(google_sql_user.reader) == 0
    error_message = "Nobody reads along."
  }
}

run "a_large_database" {
  command = plan

  variables {
    database_tier          = "db-custom-2-7680"
    database_availability  = "REGIONAL"
    database_disk_gb       = 50
    database_disk_limit_gb = 500
    maintenance_window     = { day = 6, hour = 3 }
    final_backup_days      = 0
  }

  assert {
    condition = (
      google_sql_database_instance.postgres[0].settings[0].tier == "db-custom-2-7680" && google_sql_database_instance.postgres[0].settings[0].availability_type == "REGIONAL" &&
      google_sql_database_instance.postgres[0].settings[0].disk_size == 50 && google_sql_database_instance.postgres[0].settings[0].disk_autoresize_limit == 500
    )
    error_message = "Size and availability."
  }
  assert {
    condition     = google_sql_database_instance.postgres[0].settings[0].maintenance_window[0].day == 6 && !google_sql_database_instance.postgres[0].settings[0].final_backup_config[0].enabled
    error_message = "Maintenance, and no final backup."
  }
  assert {
    condition     = google_monitoring_alert_policy.database["disk"].conditions[0].condition_threshold[0].threshold_value == 400000000000
    error_message = "The alert follows the limit."
  }
}

run "a_large_run" {
  command = plan

  variables {
    run_cpu        = 4
    run_memory_gib = 16
  }

  assert {
    condition     = google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].resources[0].limits == tomap({ cpu = "4", memory = "16Gi" })
    error_message = "Size of a run."
  }
}

run "alerts_of_the_database" {
  command = plan

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.database)) == toset(["disk", "connections"]) && length(google_monitoring_alert_policy.failed_backup) == 1
    error_message = "Disk, connections, failed backups."
  }
  assert {
    condition     = google_monitoring_alert_policy.database["connections"].conditions[0].condition_threshold[0].threshold_value == 80
    error_message = "80 of the 100 connections that ten runs need."
  }
}

run "logs_for_a_month_by_default" {
  command = plan

  assert {
    condition     = length(google_logging_project_bucket_config.own) + length(google_logging_project_sink.own) == 0 && google_storage_bucket.logs.lifecycle_rule[0].condition[0].age == 30
    error_message = "The project's own bucket keeps 30 days, and so does that of the steps."
  }
}

run "logs_for_longer" {
  command = plan

  variables {
    log_retention_days = 90
  }

  assert {
    condition     = google_logging_project_bucket_config.own[0].retention_days == 90 && google_storage_bucket.logs.lifecycle_rule[0].condition[0].age == 90
    error_message = "Lines and step output."
  }
  assert {
    condition     = alltrue([for name in ["taxi-webserver", "taxi-run", "taxi-daemon"] : strcontains(google_logging_project_sink.own[0].filter, name)])
    error_message = "Lines of this deployment, and no others."
  }
}

run "readers_of_the_database" {
  command = plan

  variables {
    database_readers = ["user:ana@example.com", "serviceAccount:bi@my-project-123.iam.gserviceaccount.com"]
  }

  assert {
    condition = { for user in google_sql_user.reader : user.name => user.type } == {
      "ana@example.com"       = "CLOUD_IAM_USER"
      "bi@my-project-123.iam" = "CLOUD_IAM_SERVICE_ACCOUNT"
    }
    error_message = "Users without a password."
  }
  assert {
    condition     = contains(google_sql_database_instance.postgres[0].settings[0].database_flags[*].name, "cloudsql.iam_authentication")
    error_message = "The server lets them in."
  }
}

run "another_region_and_other_times" {
  command = plan

  variables {
    region               = "europe-west1"
    image                = "europe-west1-docker.pkg.dev/my-project-123/taxi/taxi:1"
    taxi_source          = "sample"
    wake_schedule        = "2 */6 * * *"
    lake_cold_after_days = 7
    billing_account      = "012345-6789AB-CDEF01"
    monthly_budget       = 40
    enable_private_ip    = true
    subnetwork_range     = "10.99.0.0/25"
  }

  assert {
    condition = toset([
      google_cloud_run_v2_job.run[0].location, google_cloud_run_v2_job.daemon[0].location, google_cloud_run_v2_service.webserver[0].location,
      google_sql_database_instance.postgres[0].region, google_storage_bucket.lake[0].location, google_storage_bucket.logs.location,
      google_bigquery_dataset.trips[0].location, google_artifact_registry_repository.images.location, google_compute_subnetwork.own[0].region,
      local.env.BIGQUERY_LOCATION, local.env.CLOUD_RUN_REGION,
    ]) == toset(["europe-west1"])
    error_message = "Everything is in one region."
  }
  assert {
    condition     = google_monitoring_alert_policy.daemon_silent[0].conditions[0].condition_absent[0].duration == "84600s"
    error_message = "Six hours of sleep are not an incident."
  }
  assert {
    condition     = local.env.TAXI_SOURCE == "sample" && google_cloud_scheduler_job.wake[0].schedule == "2 */6 * * *"
    error_message = "What is loaded, and when the daemon wakes."
  }
  assert {
    condition     = contains([for rule in google_storage_bucket.lake[0].lifecycle_rule : rule.condition[0].age if rule.action[0].storage_class == "COLDLINE"], 7)
    error_message = "When raw partitions move."
  }
  assert {
    condition     = google_billing_budget.monthly[0].amount[0].specified_amount[0].units == "40" && google_compute_subnetwork.own[0].ip_cidr_range == "10.99.0.0/25"
    error_message = "Budget and addresses."
  }
}

run "a_daemon_that_wakes_once_a_day" {
  command = plan

  variables {
    wake_schedule = "0 6 * * *"
  }

  assert {
    condition     = length(google_monitoring_alert_policy.daemon_silent) == 0
    error_message = "A silence of a day cannot be told from its sleep."
  }
}
