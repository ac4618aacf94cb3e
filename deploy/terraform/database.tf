# A Postgres server with two databases, each with its own user: Dagster's storage and the trips.
# Containers connect through Cloud SQL's connector, by a socket in /cloudsql.

resource "google_sql_database_instance" "postgres" {
  # checkov:skip=CKV_GCP_6: ssl_mode replaced require_ssl, which this rule expects
  # checkov:skip=CKV_GCP_60: a public address without authorized networks; only Cloud SQL's connector, with IAM, has access
  # checkov:skip=CKV2_GCP_20: the rule is about MySQL
  # checkov:skip=CKV_GCP_52: Dagster connects for every query; connections would be most of the log
  # checkov:skip=CKV_GCP_53: the same for disconnections
  # checkov:skip=CKV_GCP_79: 18 is newer than the rule
  # checkov:skip=CKV_GCP_108: all clients have the host name of the connector
  # checkov:skip=CKV_GCP_110: public trip records with one program as reader need no audit
  # checkov:skip=CKV2_GCP_13: a line for every statement; lock waits are logged
  count = var.existing_database == null ? 1 : 0

  project             = var.project_id
  name                = "${local.name}-postgres"
  region              = var.region
  database_version    = "POSTGRES_18" # computes the DATE column when it is read
  deletion_protection = var.deletion_protection

  final_backup_description = "Made when Terraform destroyed it"

  settings {
    # Edition ENTERPRISE_PLUS has no shared-core machines. The protection covers console and gcloud.
    edition                     = "ENTERPRISE"
    tier                        = var.database_tier
    availability_type           = var.database_availability
    disk_size                   = var.database_disk_gb
    disk_autoresize             = true
    disk_autoresize_limit       = var.database_disk_limit_gb
    connector_enforcement       = "REQUIRED"
    deletion_protection_enabled = var.deletion_protection

    ip_configuration {
      ipv4_enabled    = !var.enable_private_ip
      private_network = local.network
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    maintenance_window {
      day          = var.maintenance_window.day
      hour         = var.maintenance_window.hour
      update_track = "stable"
    }

    # The final backup, which remains after the server and its daily backups.
    final_backup_config {
      enabled        = var.final_backup_days > 0
      retention_days = var.final_backup_days > 0 ? var.final_backup_days : null
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      start_time                     = "07:00" # UTC: night in New York
      transaction_log_retention_days = 7
      backup_retention_settings {
        retained_backups = 7
      }
    }

    database_flags {
      name = "max_connections"
      # Some for each run of the queue, the others for webserver, daemon and people.
      value = tostring(local.max_connections)
    }
    dynamic "database_flags" {
      for_each = length(var.database_readers) > 0 ? ["on"] : []
      content {
        name  = "cloudsql.iam_authentication"
        value = database_flags.value
      }
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }
    database_flags {
      name  = "log_statement"
      value = "ddl"
    }
  }

  # The disk grows automatically; Google's provider would replace it by a smaller, empty one.
  lifecycle {
    ignore_changes = [settings[0].disk_size]
  }

  depends_on = [google_project_service.api, google_service_networking_connection.postgres]
}

data "google_sql_database_instance" "existing" {
  count = var.existing_database == null ? 0 : 1

  project = var.project_id
  name    = var.existing_database
}

locals {
  instance            = one(concat(google_sql_database_instance.postgres[*].name, data.google_sql_database_instance.existing[*].name))
  instance_connection = one(concat(google_sql_database_instance.postgres[*].connection_name, data.google_sql_database_instance.existing[*].connection_name))
  max_connections     = 40 + 6 * local.concurrent_runs

  databases = toset(["dagster", "taxi"]) # and their users
  # Two deployments may share a server.
  database_names = { for database in local.databases : database => var.name == "taxi" ? database : "${replace(var.name, "-", "_")}_${database}" }

  sockets = "/cloudsql"
  socket  = "${local.sockets}/${local.instance_connection}"

  secrets = {
    dagster = "postgresql://${local.database_names.dagster}:${ephemeral.random_password.database["dagster"].result}@/${local.database_names.dagster}?host=${local.socket}"
    taxi    = ephemeral.random_password.database["taxi"].result
  }
}

# A password is generated, written to its secret, and read from there into the database. An apply that
# is interrupted leaves at worst a secret without its user, and the next apply uses the secret.

# New at every apply, but written only if the version changes.
ephemeral "random_password" "database" {
  for_each = local.databases

  length  = 32
  special = false # one of them goes into a URL
}

resource "google_secret_manager_secret" "database" {
  for_each = local.databases

  project   = var.project_id
  secret_id = "${local.name}-${each.key}-database"

  replication {
    auto {}
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_version" "database" {
  for_each = local.databases

  secret                 = google_secret_manager_secret.database[each.key].id
  secret_data_wo         = local.secrets[each.key]
  secret_data_wo_version = var.password_version

  # Containers name a version, so the old one must exist until they are replaced.
  lifecycle {
    create_before_destroy = true
  }
}

ephemeral "google_secret_manager_secret_version" "database" {
  for_each = local.databases

  secret  = google_secret_manager_secret_version.database[each.key].secret
  version = google_secret_manager_secret_version.database[each.key].version
}

resource "google_sql_database" "this" {
  for_each = local.databases

  project  = var.project_id
  name     = local.database_names[each.key]
  instance = local.instance

  # Postgres does not drop a database or user in use; they are deleted with their server.
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "this" {
  for_each = local.databases

  project             = var.project_id
  name                = local.database_names[each.key]
  instance            = local.instance
  password_wo         = regex("^(?:postgresql://\\w+:)?([^@]+)", ephemeral.google_secret_manager_secret_version.database[each.key].secret_data)[0]
  password_wo_version = var.password_version
  deletion_policy     = "ABANDON"

  # Replaced, not updated: Terraform records a failed update as done and never repeats it. Postgres
  # keeps the user, and creating an existing user sets its password.
  lifecycle {
    replace_triggered_by = [google_secret_manager_secret_version.database[each.key]]
  }
}

# People and BI tools log in by their Google account instead of a password. Their privileges are granted
# in Postgres: deploy/README.md, "Read the trips".
resource "google_sql_user" "reader" {
  for_each = toset(var.database_readers)

  project         = var.project_id
  name            = trimsuffix(split(":", each.key)[1], ".gserviceaccount.com")
  instance        = local.instance
  type            = { user = "CLOUD_IAM_USER", group = "CLOUD_IAM_GROUP", serviceAccount = "CLOUD_IAM_SERVICE_ACCOUNT" }[split(":", each.key)[0]]
  deletion_policy = "ABANDON"
}
