# The first apply, without an image: nothing runs, everything that keeps data is there and guarded.

variables {
  project_id = "my-project-123"
}

run "nothing_runs_without_an_image" {
  command = plan

  assert {
    condition     = length(google_cloud_run_v2_job.run) + length(google_cloud_run_v2_job.daemon) + length(google_cloud_scheduler_job.wake) + length(google_cloud_run_v2_worker_pool.daemon) + length(google_cloud_run_v2_service.webserver) == 0
    error_message = "Cloud Run must wait for the image."
  }
  assert {
    condition     = length(google_cloud_run_v2_job_iam_member.this) + length(google_cloud_run_v2_service_iam_member.ui) == 0
    error_message = "There is nothing yet to give a role on."
  }
  assert {
    condition     = output.open_ui == "push an image, set image, apply again"
    error_message = "The output must say what comes next."
  }
}

run "data_is_guarded" {
  command = plan

  assert {
    condition = (
      google_sql_database_instance.postgres[0].deletion_protection &&
      google_sql_database_instance.postgres[0].settings[0].deletion_protection_enabled &&
      google_sql_database_instance.postgres[0].settings[0].backup_configuration[0].enabled &&
      google_sql_database_instance.postgres[0].settings[0].backup_configuration[0].point_in_time_recovery_enabled
    )
    error_message = "Postgres needs backups, point-in-time recovery and protection from deletion."
  }
  assert {
    condition     = !google_storage_bucket.lake[0].force_destroy && !google_bigquery_dataset.trips[0].delete_contents_on_destroy
    error_message = "A lake or a dataset with something in it must not be destroyed."
  }
  assert {
    condition = alltrue([
      for bucket in [google_storage_bucket.lake[0], google_storage_bucket.logs] :
      bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access
    ])
    error_message = "Buckets are never public."
  }
  assert {
    condition     = length(google_sql_database_instance.postgres[0].settings[0].ip_configuration[0].authorized_networks) == 0 && google_sql_database_instance.postgres[0].settings[0].connector_enforcement == "REQUIRED"
    error_message = "Postgres is reached by Cloud SQL's connector alone."
  }
}

run "passwords_are_never_stored" {
  command = plan

  assert {
    condition     = alltrue([for user in google_sql_user.this : user.password == null])
    error_message = "A user's password is write-only."
  }
  assert {
    condition     = alltrue([for version in google_secret_manager_secret_version.database : version.secret_data == null])
    error_message = "A secret's data is write-only."
  }
  assert {
    condition     = toset(keys(google_sql_database.this)) == toset(["dagster", "taxi"]) && toset(keys(google_sql_user.this)) == toset(["dagster", "taxi"])
    error_message = "Dagster's storage and the trips have a database and a user each."
  }
}

run "apis_are_those_in_use" {
  command = plan

  assert {
    condition = local.apis == toset([
      "artifactregistry", "bigquery", "cloudresourcemanager", "cloudscheduler", "iam", "logging",
      "monitoring", "run", "secretmanager", "sqladmin", "storage",
    ])
    error_message = "The defaults must ask for no API of a load balancer, IAP or billing."
  }
  assert {
    condition     = alltrue([for api in google_project_service.api : !api.disable_on_destroy])
    error_message = "Destroying this must not break what else is in the project."
  }
}

run "protection_can_be_taken_off" {
  command = plan

  variables {
    deletion_protection = false
  }

  assert {
    condition = (
      !google_sql_database_instance.postgres[0].deletion_protection &&
      !google_sql_database_instance.postgres[0].settings[0].deletion_protection_enabled &&
      google_storage_bucket.lake[0].force_destroy && google_bigquery_dataset.trips[0].delete_contents_on_destroy
    )
    error_message = "deletion_protection = false must let terraform destroy through."
  }
}
