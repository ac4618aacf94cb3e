# The account of Cloud Build. Unlike the project's default account, which has broad permissions, it only
# reads the sources that `gcloud builds submit` uploads, pushes to one repository and writes logs.

locals {
  builder = var.enable_cloud_build ? google_service_account.this["builder"].member : null
}

resource "google_artifact_registry_repository_iam_member" "builder" {
  count = var.enable_cloud_build ? 1 : 0

  project    = var.project_id
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = local.builder
}

resource "google_project_iam_member" "builder_logs" {
  count = var.enable_cloud_build ? 1 : 0

  project = var.project_id
  role    = "roles/logging.logWriter"
  member  = local.builder
}

resource "google_storage_bucket_iam_member" "builder_sources" {
  count = var.enable_cloud_build ? 1 : 0

  bucket = google_storage_bucket.logs.name
  role   = "roles/storage.objectViewer"
  member = local.builder

  condition {
    title      = "sources-only"
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.logs.name}/objects/source/')"
  }
}
