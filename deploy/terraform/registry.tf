resource "google_artifact_registry_repository" "images" {
  # checkov:skip=CKV_GCP_84: encrypted with Google's keys; the image has no secrets and no data
  project       = var.project_id
  repository_id = local.name
  location      = var.region
  format        = "DOCKER"
  description   = "The image of webserver, daemon and runs"

  docker_config {
    immutable_tags = true # a tag that was deployed stays what it was
  }

  cleanup_policies {
    id     = "keep-the-latest"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
  cleanup_policies {
    id     = "delete-after-a-month"
    action = "DELETE"
    condition {
      older_than = "30d"
    }
  }

  depends_on = [google_project_service.api]
}
