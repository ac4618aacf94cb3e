# The lake, BigQuery's dataset in the same location, and the bucket of step output.

locals {
  lake    = var.existing_bucket == null ? one(google_storage_bucket.lake[*].name) : var.existing_bucket
  dataset = var.existing_dataset == null ? one(google_bigquery_dataset.trips[*].dataset_id) : var.existing_dataset
}

resource "google_storage_bucket" "lake" {
  # checkov:skip=CKV_GCP_62: reads of public trip records need no log
  count = var.existing_bucket == null ? 1 : 0

  project       = var.project_id
  name          = "${var.project_id}-${local.name}-lake"
  location      = var.region
  force_destroy = !var.deletion_protection

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # An overwritten day can be restored for a month. Soft delete would store it a second time.
  versioning {
    enabled = true
  }
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
    }
  }
  lifecycle_rule {
    action {
      type          = "SetStorageClass"
      storage_class = "COLDLINE"
    }
    condition {
      age            = var.lake_cold_after_days
      matches_prefix = ["_raw/"]
    }
  }
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket" "logs" {
  # checkov:skip=CKV_GCP_62: these are the logs
  # checkov:skip=CKV_GCP_78: a step's output is written once
  project       = var.project_id
  name          = "${var.project_id}-${local.name}-logs"
  location      = var.region
  force_destroy = true

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = var.log_retention_days
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_bigquery_dataset" "trips" {
  # checkov:skip=CKV_GCP_81: encrypted with Google's keys; the trip records are public
  count = var.existing_dataset == null ? 1 : 0

  project                    = var.project_id
  dataset_id                 = var.name == "taxi" ? "ny_taxi" : "${replace(var.name, "-", "_")}_ny_taxi"
  location                   = var.region
  description                = "NYC taxi trips, a table a service, partitioned by the pickup's day"
  delete_contents_on_destroy = !var.deletion_protection

  depends_on = [google_project_service.api]
}
