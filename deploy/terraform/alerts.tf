# E-mail alerts: a failed run, a silent daemon, and a database that is filling up or
# whose backup failed. The first two are counted in the logs by messages of Dagster, which the launch test verifies.

locals {
  daemon_resource = var.daemon == "always" ? "cloud_run_worker_pool" : "cloud_run_job"
  daemon_label    = var.daemon == "always" ? "worker_pool_name" : "job_name"
  daemon_logs     = "resource.type=\"${local.daemon_resource}\" AND resource.labels.${local.daemon_label}=\"${local.daemon_name}\""
  # Of a daemon that is woken every hour two wakes and a half: one that fails is tried again. 23.5 hours
  # are the longest silence that Cloud Monitoring notices, so one that is woken once a day has no alert.
  wake           = split(" ", var.wake_schedule)
  daemon_silence = var.daemon == "always" ? "600s" : local.wake[1] == "*" ? "9000s" : "84600s"
  daemon_speaks  = var.daemon == "always" || (!can(tonumber(local.wake[1])) && alltrue([for field in slice(local.wake, 2, 5) : field == "*"]))
  run_logs       = "resource.type=\"cloud_run_job\" AND resource.labels.job_name=\"${local.job_name}\""

  backup_logs = "logName=\"projects/${var.project_id}/logs/cloudaudit.googleapis.com%2Fsystem_event\" AND resource.type=\"cloudsql_database\" AND resource.labels.database_id=\"${var.project_id}:${local.instance}\" AND protoPayload.methodName=\"cloudsql.instances.automatedBackup\""

  metrics = {
    failed_runs = {
      description = "Runs that ended as failed, by their own log"
      filter      = "${local.run_logs} AND textPayload:\"RUN_FAILURE\""
    }
    lost_runs = {
      description = "Runs that never started or whose execution was lost, by the daemon's log"
      filter      = "${local.daemon_logs} AND (jsonPayload.event:\"Marking run\" OR jsonPayload.event:\"Run timed out\")"
    }
    failed_backups = {
      description = "Daily backups of the database that ended in another way than well"
      filter      = "${local.backup_logs} AND (severity>=ERROR OR protoPayload.metadata.windowStatus=~\"FAIL|ERROR|SKIP|CANCEL\")"
    }
    heartbeats = {
      description = "Lines of the daemon's loops; one says something every 30 seconds"
      filter      = "${local.daemon_logs} AND jsonPayload.logger:\"dagster.daemon\""
    }
  }
}

resource "google_logging_metric" "this" {
  for_each = local.metrics

  project     = var.project_id
  name        = "${local.name}/${each.key}"
  description = each.value.description
  filter      = each.value.filter

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  project      = var.project_id
  display_name = each.key
  type         = "email"
  labels       = { email_address = each.key }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "failed_runs" {
  count = local.deploy ? 1 : 0

  project               = var.project_id
  display_name          = "${local.name}: a run failed"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id

  dynamic "conditions" {
    for_each = { failed_runs = "cloud_run_job", lost_runs = local.daemon_resource }
    content {
      display_name = google_logging_metric.this[conditions.key].description
      condition_threshold {
        filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this[conditions.key].name}\" AND resource.type=\"${conditions.value}\""
        comparison      = "COMPARISON_GT"
        threshold_value = 0
        duration        = "0s"
        aggregations {
          alignment_period     = "300s"
          per_series_aligner   = "ALIGN_DELTA"
          cross_series_reducer = "REDUCE_SUM"
        }
      }
    }
  }

  alert_strategy {
    auto_close = "1800s"
  }

  documentation {
    content = "Open the UI (`terraform output open_ui`), Runs, Failed. A lost run is started again by the daemon, twice; a run whose step failed is not."
  }
}

resource "google_monitoring_alert_policy" "daemon_silent" {
  count = local.deploy && var.daemon != "off" && local.daemon_speaks ? 1 : 0

  project               = var.project_id
  display_name          = "${local.name}: the daemon is silent"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id

  conditions {
    display_name = "No line of the daemon's loops in ${local.daemon_silence}"
    condition_absent {
      filter   = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["heartbeats"].name}\" AND resource.type=\"${local.daemon_resource}\""
      duration = local.daemon_silence
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "Schedules, the run queue and backfills stand still. Its last words: `gcloud logging read '${local.daemon_logs}' --project ${var.project_id} --limit 50`."
  }
}

locals {
  database_metrics = {
    disk = {
      condition = "The disk is at 80 % of database_disk_limit_gb"
      metric    = "cloudsql.googleapis.com/database/disk/bytes_used"
      threshold = 0.8 * var.database_disk_limit_gb * 1000 * 1000 * 1000
    }
    connections = {
      condition = "80 % of all connections are taken"
      metric    = "cloudsql.googleapis.com/database/postgresql/num_backends"
      threshold = floor(0.8 * local.max_connections)
    }
  }
}

# The owner of an existing database gets its alerts.
resource "google_monitoring_alert_policy" "database" {
  for_each = { for name, found in local.database_metrics : name => found if var.existing_database == null }

  project               = var.project_id
  display_name          = "${local.name}: the database's ${each.key}"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id

  conditions {
    display_name = each.value.condition
    condition_threshold {
      filter          = "metric.type=\"${each.value.metric}\" AND resource.type=\"cloudsql_database\" AND resource.labels.database_id=\"${var.project_id}:${local.instance}\""
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = "300s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_MEAN"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "The database stops at its limits. Disk: raise database_disk_limit_gb, or drop what is not needed. Connections: look at pg_stat_activity, or lower max_concurrent_runs."
  }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "failed_backup" {
  count = var.existing_database == null ? 1 : 0

  project               = var.project_id
  display_name          = "${local.name}: a backup failed"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = values(google_monitoring_notification_channel.email)[*].id

  conditions {
    display_name = google_logging_metric.this["failed_backups"].description
    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.this["failed_backups"].name}\" AND resource.type=\"cloudsql_database\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }

  documentation {
    content = "`gcloud sql backups list --instance ${local.instance} --project ${var.project_id}` has the others; make one now with `gcloud sql backups create`."
  }
}
