# Everything the accounts may do, to the last role. check_plan.py sees that no other resource
# gives one.

variables {
  project_id = "my-project-123"
  image      = "us-central1-docker.pkg.dev/my-project-123/taxi/taxi:1"
  ui_members = ["user:me@example.com"]
}

run "exactly_these_roles" {
  command = plan

  assert {
    condition     = toset(keys(google_service_account.this)) == toset(["webserver", "daemon", "runner", "waker"])
    error_message = "An account for each container, and one for Cloud Scheduler."
  }
  assert {
    condition = { for key, grant in google_storage_bucket_iam_member.this : key => grant.role } == {
      "webserver logs legacyBucketReader" = "roles/storage.legacyBucketReader"
      "webserver logs objectViewer"       = "roles/storage.objectViewer"
      "daemon logs legacyBucketReader"    = "roles/storage.legacyBucketReader"
      "daemon logs objectUser"            = "roles/storage.objectUser"
      "runner logs legacyBucketReader"    = "roles/storage.legacyBucketReader"
      "runner logs objectUser"            = "roles/storage.objectUser"
      "runner lake legacyBucketReader"    = "roles/storage.legacyBucketReader"
      "runner lake objectUser"            = "roles/storage.objectUser"
    }
    error_message = "Only runs write to the lake."
  }
  assert {
    condition = { for key, grant in google_cloud_run_v2_job_iam_member.this : key => grant.role } == {
      "webserver jobsExecutor"           = "roles/run.jobsExecutor"
      "daemon jobsExecutorWithOverrides" = "roles/run.jobsExecutorWithOverrides"
      "daemon viewer"                    = "roles/run.viewer"
    }
    error_message = "The daemon launches and looks, the webserver cancels, on this one job."
  }
  assert {
    condition = { for key, grant in google_cloud_run_v2_job_iam_member.daemon : key => grant.role } == {
      "webserver" = "roles/run.jobsExecutor"
      "waker"     = "roles/run.jobsExecutor"
    }
    error_message = "Webserver and Cloud Scheduler start the daemon, without arguments."
  }
  assert {
    condition     = toset(keys(google_project_iam_member.database)) == toset(["webserver", "daemon", "runner"])
    error_message = "Cloud Scheduler's account has nothing to do with the database."
  }
  assert {
    condition = { for key, grant in google_secret_manager_secret_iam_member.database : key => grant.role } == {
      "webserver dagster" = "roles/secretmanager.secretAccessor"
      "daemon dagster"    = "roles/secretmanager.secretAccessor"
      "runner dagster"    = "roles/secretmanager.secretAccessor"
      "runner taxi"       = "roles/secretmanager.secretAccessor"
    }
    error_message = "Only runs read the password of the trips' database."
  }
  assert {
    condition     = length(google_secret_manager_secret_iam_member.setting) == 0
    error_message = "No further secret without taxi_secrets."
  }
  assert {
    condition     = google_bigquery_dataset_iam_member.runner.role == "roles/bigquery.dataEditor" && google_project_iam_member.bigquery_jobs.role == "roles/bigquery.jobUser"
    error_message = "Runs edit the one dataset and start jobs."
  }
  assert {
    condition = alltrue([
      for grant in google_project_iam_member.database :
      grant.role == "roles/cloudsql.client" &&
      grant.condition[0].expression == "resource.name == 'projects/my-project-123/instances/taxi-postgres' && resource.type == 'sqladmin.googleapis.com/Instance'"
    ])
    error_message = "The project's role for Cloud SQL holds for this one instance."
  }
  assert {
    condition     = { for key, grant in google_cloud_run_v2_service_iam_member.ui : key => grant.role } == { "user:me@example.com" = "roles/run.invoker" }
    error_message = "The UI opens for its members and for nobody else."
  }
}

run "a_secret_setting_is_for_those_who_need_it" {
  command = plan

  variables {
    taxi_secrets = { TAXI_ALERT_URLS = "taxi-alert-urls", POSTGRES_READER_PASSWORD = "taxi-reader" }
  }

  assert {
    condition = { for key, grant in google_secret_manager_secret_iam_member.setting : key => grant.role } == {
      "daemon taxi-alert-urls"    = "roles/secretmanager.secretAccessor"
      "runner taxi-reader"        = "roles/secretmanager.secretAccessor"
      "webserver taxi-alert-urls" = "roles/secretmanager.secretAccessor"
    }
    error_message = "The daemon sends alerts, the webserver shows that they are on, runs read Postgres."
  }
  assert {
    condition = {
      for role, env in {
        webserver = google_cloud_run_v2_service.webserver[0].template[0].containers[0].env
        daemon    = google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].env
        runner    = google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].env
      } : role => sort(setintersection(env[*].name, keys(local.secret_settings)))
      } == {
      webserver = tolist(["TAXI_ALERT_URLS"])
      daemon    = tolist(["TAXI_ALERT_URLS"])
      runner    = tolist(["POSTGRES_READER_PASSWORD"])
    }
    error_message = "Who reads a secret has it in the environment, and nobody else."
  }
}

run "no_builder_and_no_reader_by_default" {
  command = plan

  assert {
    condition     = length(google_artifact_registry_repository_iam_member.builder) + length(google_project_iam_member.builder_logs) + length(google_storage_bucket_iam_member.builder_sources) + length(google_project_iam_member.reader) == 0
    error_message = "No right for what is not switched on."
  }
}

run "a_builder_pushes_logs_and_reads_its_sources" {
  command = plan

  variables {
    enable_cloud_build = true
  }

  assert {
    condition     = contains(keys(google_service_account.this), "builder") && contains(keys(google_project_service.api), "cloudbuild")
    error_message = "An account of its own."
  }
  assert {
    condition = [
      google_artifact_registry_repository_iam_member.builder[0].role, google_project_iam_member.builder_logs[0].role,
      google_storage_bucket_iam_member.builder_sources[0].role,
    ] == ["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"]
    error_message = "Exactly these."
  }
  assert {
    condition     = google_storage_bucket_iam_member.builder_sources[0].condition[0].expression == "resource.name.startsWith('projects/_/buckets/my-project-123-taxi-logs/objects/source/')"
    error_message = "Of the bucket, the sources alone."
  }
  assert {
    condition     = !contains(local.secret_readers.dagster, "builder") && toset(keys(google_project_iam_member.database)) == toset(["webserver", "daemon", "runner"])
    error_message = "No password, no database."
  }
}

run "a_reader_connects_to_this_instance_alone" {
  command = plan

  variables {
    database_readers = ["user:ana@example.com"]
  }

  assert {
    condition = { for key, grant in google_project_iam_member.reader : key => grant.role } == {
      "client user:ana@example.com"       = "roles/cloudsql.client"
      "instanceUser user:ana@example.com" = "roles/cloudsql.instanceUser"
    }
    error_message = "To connect, and to log in."
  }
  assert {
    condition     = alltrue([for grant in google_project_iam_member.reader : grant.condition[0].expression == local.this_instance])
    error_message = "To this instance."
  }
}
