# A global load balancer: address, certificate, TLS 1.2 or later, and optionally Cloud Armor.

locals {
  load_balancer = local.deploy && var.enable_load_balancer ? 1 : 0
}

resource "google_compute_global_address" "ui" {
  count = local.load_balancer

  project    = var.project_id
  name       = "${local.name}-ui"
  depends_on = [google_project_service.api]
}

resource "google_compute_region_network_endpoint_group" "ui" {
  count = local.load_balancer

  project               = var.project_id
  name                  = "${local.name}-ui"
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloud_run_v2_service.webserver[0].name
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_backend_service" "ui" {
  count = local.load_balancer

  project               = var.project_id
  name                  = "${local.name}-ui"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  security_policy       = one(google_compute_security_policy.ui[*].id)

  backend {
    group = google_compute_region_network_endpoint_group.ui[0].id
  }
}

resource "google_compute_security_policy" "ui" {
  # checkov:skip=CKV_GCP_73: the rule requires a Log4j filter; there is no Java behind it, and only known ranges have access
  count = local.load_balancer == 1 && var.enable_cloud_armor ? 1 : 0

  project = var.project_id
  name    = "${local.name}-ui"

  rule {
    description = "Known ranges"
    action      = "allow"
    priority    = 1000
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = var.allowed_ip_ranges
      }
    }
  }
  rule {
    description = "Everyone else"
    action      = "deny(403)"
    priority    = 2147483647
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_managed_ssl_certificate" "ui" {
  count = local.load_balancer

  project = var.project_id
  name    = "${local.name}-ui"
  managed {
    domains = [var.domain]
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_ssl_policy" "ui" {
  count = local.load_balancer

  project         = var.project_id
  name            = "${local.name}-ui"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"

  depends_on = [google_project_service.api]
}

resource "google_compute_url_map" "ui" {
  count = local.load_balancer

  project         = var.project_id
  name            = "${local.name}-ui"
  default_service = google_compute_backend_service.ui[0].id
}

resource "google_compute_target_https_proxy" "ui" {
  count = local.load_balancer

  project          = var.project_id
  name             = "${local.name}-ui"
  url_map          = google_compute_url_map.ui[0].id
  ssl_certificates = [google_compute_managed_ssl_certificate.ui[0].id]
  ssl_policy       = google_compute_ssl_policy.ui[0].id
}

resource "google_compute_global_forwarding_rule" "ui" {
  count = local.load_balancer

  project               = var.project_id
  name                  = "${local.name}-ui"
  target                = google_compute_target_https_proxy.ui[0].id
  ip_address            = google_compute_global_address.ui[0].id
  port_range            = "443"
  load_balancing_scheme = "EXTERNAL_MANAGED"
}
