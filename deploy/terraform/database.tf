# One Postgres server with two databases, each with a user of its own: Dagster's storage and the
# trips. Containers reach it through Cloud SQL's own connector, by a socket in /cloudsql.

resource "google_sql_database_instance" "postgres" {
  # checkov:skip=CKV_GCP_6: ssl_mode replaced require_ssl, which this rule asks for
  # checkov:skip=CKV_GCP_60: a public address without one authorized network; only Cloud SQL's connector, with IAM, gets in
  # checkov:skip=CKV2_GCP_20: the rule is about MySQL
  # checkov:skip=CKV_GCP_52: Dagster connects for every question it asks; connections would be most of the log
  # checkov:skip=CKV_GCP_53: nor their ends
  # checkov:skip=CKV_GCP_79: 18 is newer than the rule
  # checkov:skip=CKV_GCP_108: all clients have one host name, the connector's
  # checkov:skip=CKV_GCP_110: public trip records, read by one program: nobody to audit
  # checkov:skip=CKV2_GCP_13: a line for every statement; what waits for a lock is logged
  count = var.existing_database == null ? 1 : 0

  project             = var.project_id
  name                = "${local.name}-postgres"
  region              = var.region
  database_version    = "POSTGRES_18" # computes the DATE column when it is read
  deletion_protection = var.deletion_protection

  final_backup_description = "Made when Terraform destroyed it"

  settings {
    # Edition ENTERPRISE_PLUS has no shared-core machines. The protection is that of console and gcloud.
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

    # What is left of it when it is destroyed, whatever becomes of its daily backups.
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
      # A few for each run of the queue, the rest for webserver, daemon and people.
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

  # It grows by itself, and Google's provider would make a smaller one again, without the data.
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

# A password goes one way: made at random, written to its secret, read from there into the database.
# An apply that is broken off anywhere leaves a secret without its user at worst, and the next one
# takes up what the secret says.

# New at every apply, and written only where the version changes.
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

  # Containers name a version: the old one must last until they have changed over.
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

  # Postgres does not drop what is in use: database and users go with their server.
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

  # Made again, not updated: an update that fails is in the state as if it had been done, and would
  # never be repeated. Postgres keeps the user, and making one that exists gives it the password.
  lifecycle {
    replace_triggered_by = [google_secret_manager_secret_version.database[each.key]]
  }
}

# People and BI tools, by their Google account in place of a password. What they may read is granted
# in Postgres: deploy/README.md, "Read the trips".
resource "google_sql_user" "reader" {
  for_each = toset(var.database_readers)

  project         = var.project_id
  name            = trimsuffix(split(":", each.key)[1], ".gserviceaccount.com")
  instance        = local.instance
  type            = { user = "CLOUD_IAM_USER", group = "CLOUD_IAM_GROUP", serviceAccount = "CLOUD_IAM_SERVICE_ACCOUNT" }[split(":", each.key)[0]]
  deletion_policy = "ABANDON"
}
