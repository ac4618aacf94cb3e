# The three roles of the image: webserver (scales to zero), daemon (woken for work, or always one),
# runs (an execution each). They differ in command, account and size; settings and secrets are these.

locals {
  env = merge(
    {
      DAGSTER_HOME        = "/opt/dagster/gcp"
      DAGSTER_LOGS_BUCKET = google_storage_bucket.logs.name
      CLOUD_RUN_REGION    = var.region
      CLOUD_RUN_RUNS_JOB  = local.job_name
      TAXI_PROFILE        = "gcp"
      TAXI_SOURCE         = var.taxi_source
      GCP_PROJECT         = var.project_id
      GCS_BUCKET          = local.lake
      BIGQUERY_DATASET    = local.dataset
      BIGQUERY_LOCATION   = var.region
      POSTGRES_HOST       = local.socket
      POSTGRES_DBNAME     = google_sql_database.this["taxi"].name
      POSTGRES_USER       = google_sql_user.this["taxi"].name
    },
    var.taxi_settings,
  )

  # By name and version, so that a new password creates new revisions.
  dagster_secret = { DAGSTER_PG_URL = google_secret_manager_secret_version.database["dagster"] }
  taxi_secret    = { POSTGRES_PASSWORD = google_secret_manager_secret_version.database["taxi"] }
  own_secrets = {
    webserver = local.dagster_secret
    daemon    = local.dagster_secret
    runner    = merge(local.dagster_secret, local.taxi_secret)
  }
  secret_env = {
    for role, versions in local.own_secrets : role => merge(versions, {
      for name, secret in var.taxi_secrets : name => { secret = secret, version = "latest" } if contains(local.secret_settings[name], role)
    })
  }
}

resource "google_cloud_run_v2_job" "run" {
  count = local.deploy ? 1 : 0

  project             = var.project_id
  name                = local.job_name
  location            = var.region
  deletion_protection = false # it holds nothing

  template {
    task_count = 1

    template {
      service_account = google_service_account.this["runner"].email
      timeout         = "${local.run_timeout}s"
      # Dagster retries with a new run; Cloud Run would start the same run again.
      max_retries = 0

      # No command and no arguments, because the arguments of a run contain its command.
      containers {
        image = var.image

        resources {
          limits = { cpu = tostring(var.run_cpu), memory = "${var.run_memory_gib}Gi" }
        }

        dynamic "env" {
          for_each = local.env
          content {
            name  = env.key
            value = env.value
          }
        }
        dynamic "env" {
          for_each = local.secret_env.runner
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

  # Its first execution starts immediately, and needs these permissions.
  depends_on = [
    google_bigquery_dataset_iam_member.runner,
    google_project_iam_member.bigquery_jobs,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.database,
    google_secret_manager_secret_iam_member.setting,
    google_sql_user.this,
    google_storage_bucket_iam_member.this,
  ]
}

resource "google_cloud_run_v2_service" "webserver" {
  count = local.deploy ? 1 : 0

  project             = var.project_id
  name                = "${local.name}-webserver"
  location            = var.region
  deletion_protection = false

  # With IAP, the load balancer is the only access; without it, gcloud's proxy needs access.
  ingress          = var.enable_load_balancer && var.enable_iap ? "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER" : "INGRESS_TRAFFIC_ALL"
  iap_enabled      = var.enable_iap
  custom_audiences = var.enable_load_balancer ? ["https://${var.domain}"] : []

  template {
    service_account = google_service_account.this["webserver"].email
    timeout         = "3600s" # the UI listens for events on one long request

    scaling {
      min_instance_count = 0
      max_instance_count = 1
    }

    containers {
      image   = var.image
      command = ["dagster-webserver"]
      args    = ["-m", local.location, "-h", "0.0.0.0", "-p", "3000"]

      ports {
        container_port = 3000
      }

      resources {
        limits            = { cpu = "1", memory = "1Gi" }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 5
        failure_threshold = 36
        http_get {
          path = "/server_info"
          port = 3000
        }
      }

      dynamic "env" {
        for_each = merge(local.env, { for job in google_cloud_run_v2_job.daemon : "CLOUD_RUN_DAEMON_JOB" => job.id })
        content {
          name  = env.key
          value = env.value
        }
      }
      dynamic "env" {
        for_each = local.secret_env.webserver
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
    google_cloud_run_v2_job_iam_member.daemon,
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.database,
    google_sql_user.this,
    google_storage_bucket_iam_member.this,
  ]
}
