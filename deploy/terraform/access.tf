# Access to the UI. By default the members may invoke the service, which `gcloud run services proxy`
# does with their credentials. With IAP they sign in on a page and IAP invokes the service, at its own
# address and behind a load balancer.

locals {
  # Static keys, because the project's number is unknown during the first apply with IAP.
  ui_invokers = (
    var.enable_iap
    ? { iap = "serviceAccount:service-${data.google_project.this[0].number}@gcp-sa-iap.iam.gserviceaccount.com" }
    : { for member in var.ui_members : member => member }
  )
}

resource "google_cloud_run_v2_service_iam_member" "ui" {
  for_each = local.deploy ? local.ui_invokers : {}

  project  = var.project_id
  name     = google_cloud_run_v2_service.webserver[0].name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_iap_web_cloud_run_service_iam_member" "ui" {
  for_each = local.deploy && var.enable_iap ? toset(var.ui_members) : toset([])

  project                = var.project_id
  cloud_run_service_name = google_cloud_run_v2_service.webserver[0].name
  location               = var.region
  role                   = "roles/iap.httpsResourceAccessor"
  member                 = each.key
}

# Not an error: callers with an ID token for the domain have access.
check "browsers_get_in" {
  assert {
    condition     = !var.enable_load_balancer || var.enable_iap
    error_message = "A load balancer without IAP has no sign-in page, and the service is never public: browsers get a 403 there. Open the UI with `gcloud run services proxy`, or set enable_iap."
  }
}
