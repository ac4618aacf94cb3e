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
  value       = "gs://${local.lake}"
}

output "bigquery_dataset" {
  description = "The tables' dataset."
  value       = "${var.project_id}.${local.dataset}"
}

output "postgres" {
  description = "Connection name of the database, for Cloud SQL's proxy and connectors."
  value       = local.instance_connection
}

output "run_job" {
  description = "The Cloud Run job whose executions are the runs."
  value       = local.job_name
}

output "service_accounts" {
  description = "The accounts, by role."
  value       = { for role, account in google_service_account.this : role => account.email }
}

output "build" {
  description = "How to build the image on Google's machines; null without enable_cloud_build."
  value = var.enable_cloud_build ? join(" ", [
    "gcloud builds submit --project ${var.project_id} --region ${var.region}",
    "--config deploy/cloudbuild.yaml --substitutions _IMAGE=\"$IMAGE\"",
    "--service-account ${google_service_account.this["builder"].id}",
    "--gcs-source-staging-dir gs://${google_storage_bucket.logs.name}/source .",
  ]) : null
}
