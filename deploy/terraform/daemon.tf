# The daemon on demand: Cloud Scheduler starts it every hour, and the webserver for every backfill and
# queued run. It exits when it has no work (taxi_assets/dagster_internals/woken_daemon.py).
resource "google_cloud_run_v2_job" "daemon" {
  count = local.deploy && var.daemon == "woken" ? 1 : 0

  project             = var.project_id
  name                = local.daemon_name
  location            = var.region
  deletion_protection = false

  template {
    task_count = 1

    template {
      service_account = google_service_account.this["daemon"].email
      timeout         = "86400s" # the next wake goes on with what a day was too short for
      max_retries     = 1

      containers {
        image   = var.image
        command = ["python", "-m", "taxi_assets.dagster_internals.woken_daemon"]
        args    = [local.location]

        resources {
          limits = { cpu = "1", memory = "1Gi" }
        }

        dynamic "env" {
          for_each = local.env
          content {
            name  = env.key
            value = env.value
          }
        }
        dynamic "env" {
          for_each = local.secret_env.daemon
          content {
            name = env.key
            value_source {
              secret_key_ref {
                secret  = env.value.secret
                version = env.value.version
              }
            }
          }
        }

        volume_mounts {
          name       = "cloudsql"
          mount_path = local.sockets
        }
      }

      dynamic "vpc_access" {
        for_each = local.vpc_access
        content {
          egress = vpc_access.value
          network_interfaces {
            network    = local.network
            subnetwork = local.subnetwork
          }
        }
      }

      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [local.instance_connection]
        }
      }
    }
  }

  depends_on = [
    google_cloud_run_v2_job_iam_member.this,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.database,
    google_secret_manager_secret_iam_member.setting,
    google_sql_user.this,
    google_storage_bucket_iam_member.this,
  ]
}

resource "google_cloud_scheduler_job" "wake" {
  count = local.deploy && var.daemon == "woken" ? 1 : 0

  project          = var.project_id
  name             = "${local.name}-wake"
  region           = var.region
  description      = "Wakes the daemon: schedules and sensors fire within the hour"
  schedule         = var.wake_schedule
  time_zone        = "America/New_York"
  attempt_deadline = "60s"

  retry_config {
    retry_count = 3
  }

  http_target {
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.daemon[0].id}:run"
    http_method = "POST"

    oauth_token {
      service_account_email = google_service_account.this["waker"].email
    }
  }

  depends_on = [google_cloud_run_v2_job_iam_member.daemon]
}

# The daemon that always runs.
resource "google_cloud_run_v2_worker_pool" "daemon" {
  count = local.deploy && var.daemon == "always" ? 1 : 0

  project             = var.project_id
  name                = "${local.name}-daemon"
  location            = var.region
  deletion_protection = false

  # Never two, which would both process the queue.
  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = 1
  }

  template {
    service_account = google_service_account.this["daemon"].email

    containers {
      image   = var.image
      command = ["dagster-daemon"]
      # At level info an idle daemon logs nothing; at debug it logs a heartbeat every 30 seconds.
      args = ["run", "-m", local.location, "--log-format", "json", "--log-level", "debug"]

      resources {
        limits = { cpu = "1", memory = "1Gi" }
      }

      dynamic "env" {
        for_each = local.env
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "env" {
        for_each = local.secret_env.daemon
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value.secret
              version = env.value.version
            }
          }
        }
      }

      volume_mounts {
        name       = "cloudsql"
        mount_path = local.sockets
      }
    }

    dynamic "vpc_access" {
      for_each = local.vpc_access
      content {
        egress = vpc_access.value
        network_interfaces {
          network    = local.network
          subnetwork = local.subnetwork
        }
      }
    }

    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [local.instance_connection]
      }
    }
  }

  depends_on = [
    google_cloud_run_v2_job_iam_member.this,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.database,
    google_secret_manager_secret_iam_member.setting,
    google_sql_user.this,
    google_storage_bucket_iam_member.this,
  ]
}
