# Shared by the other files: names, values of Dagster's settings, the APIs.

locals {
  name   = var.name
  deploy = var.image != null

  # Read from the file in the image.
  dagster         = yamldecode(file("${path.module}/../dagster-gcp.yaml"))
  launcher        = local.dagster.run_launcher.config
  job_name        = "${local.name}-run"
  daemon_name     = "${local.name}-daemon"
  location        = one(keys(local.launcher.job_name_by_code_location))
  run_timeout     = local.launcher.run_timeout
  concurrent_runs = local.dagster.concurrency.runs.max_concurrent_runs

  apis = toset(concat(
    [
      "artifactregistry", "bigquery", "cloudresourcemanager", "iam", "logging", "monitoring", "run",
      "secretmanager", "sqladmin", "storage",
    ],
    var.daemon == "woken" ? ["cloudscheduler"] : [],
    var.enable_cloud_build ? ["cloudbuild"] : [],
    var.enable_iap ? ["iap"] : [],
    var.enable_load_balancer || var.enable_private_ip ? ["compute"] : [],
    var.enable_private_ip && var.network == null ? ["servicenetworking"] : [],
    var.billing_account == null ? [] : ["billingbudgets"],
  ))
}

# All resources depend on these, most of them through an account, a bucket or the database.
resource "google_project_service" "api" {
  for_each = local.apis

  project            = var.project_id
  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # other things in the project may use them
}

# The project's number, for resources that need it instead of its name.
data "google_project" "this" {
  count = var.enable_iap || var.billing_account != null ? 1 : 0

  project_id = var.project_id

  depends_on = [google_project_service.api]
}
