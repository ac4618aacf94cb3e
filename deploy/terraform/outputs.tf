output "image_repository" {
  description = "Where to push the image: <this>/taxi:<tag>."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "open_ui" {
  description = "How to open the UI: a command, or an address."
  value = (
    !local.deploy ? "push an image, set image, apply again" :
    !var.enable_iap ? "gcloud run services proxy ${google_cloud_run_v2_service.webserver[0].name} --project ${var.project_id} --region ${var.region} --port 3000" :
    var.enable_load_balancer ? "https://${var.domain}" :
    google_cloud_run_v2_service.webserver[0].uri
  )
}

output "load_balancer_address" {
  description = "What the domain's A record must say; null without a load balancer."
  value       = one(google_compute_global_address.ui[*].address)
}

output "lake" {
  description = "The lake: pandas.read_parquet(\"<this>/yellow\")."
  value       = "gs://${google_storage_bucket.lake.name}"
}

output "bigquery_dataset" {
  description = "The tables' dataset."
  value       = "${var.project_id}.${google_bigquery_dataset.trips.dataset_id}"
}

output "postgres" {
  description = "Connection name of the database, for `gcloud sql connect` and Cloud SQL's proxy."
  value       = google_sql_database_instance.postgres.connection_name
}

output "run_job" {
  description = "The Cloud Run job whose executions are the runs."
  value       = local.job_name
}

output "service_accounts" {
  description = "The three accounts, by role."
  value       = { for role, account in google_service_account.this : role => account.email }
}
