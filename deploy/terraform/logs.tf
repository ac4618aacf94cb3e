# The project's bucket keeps log lines for 30 days. For a longer time, those of this deployment are also
# stored in a separate bucket; the project's other logs are not changed.

locals {
  own_log_bucket = var.log_retention_days > 30 ? 1 : 0
  containers     = "resource.labels.service_name=\"${local.name}-webserver\" OR resource.labels.job_name=(\"${local.job_name}\" OR \"${local.daemon_name}\") OR resource.labels.worker_pool_name=\"${local.daemon_name}\""
}

resource "google_logging_project_bucket_config" "own" {
  count = local.own_log_bucket

  project        = var.project_id
  location       = var.region
  bucket_id      = local.name
  retention_days = var.log_retention_days

  depends_on = [google_project_service.api]
}

resource "google_logging_project_sink" "own" {
  count = local.own_log_bucket

  project                = var.project_id
  name                   = local.name
  destination            = "logging.googleapis.com/${google_logging_project_bucket_config.own[0].id}"
  filter                 = local.containers
  unique_writer_identity = true
}
