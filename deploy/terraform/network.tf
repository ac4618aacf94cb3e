# A private address for the database, for organizations that forbid public ones: in a new network, or in an
# existing one with private services access.

locals {
  own_network = var.enable_private_ip && var.network == null ? 1 : 0
  network     = var.enable_private_ip ? coalesce(var.network, one(google_compute_network.own[*].id)) : null
  subnetwork  = var.enable_private_ip ? coalesce(var.subnetwork, one(google_compute_subnetwork.own[*].id)) : null
  # The containers' connection to the network. Traffic to public addresses, such as the source, is direct.
  vpc_access = var.enable_private_ip ? ["PRIVATE_RANGES_ONLY"] : []
}

resource "google_compute_network" "own" {
  # checkov:skip=CKV2_GCP_18: it has no machines, and a new network has no firewall rule that allows ingress
  count = local.own_network

  project                 = var.project_id
  name                    = local.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "own" {
  # checkov:skip=CKV_GCP_26: flow logs of connections to one database are of no use and are billed by the gigabyte
  # checkov:skip=CKV_GCP_76: the network has no IPv6
  count = local.own_network

  project                  = var.project_id
  name                     = local.name
  region                   = var.region
  network                  = google_compute_network.own[0].id
  ip_cidr_range            = var.subnetwork_range
  private_ip_google_access = true
}

resource "google_compute_global_address" "postgres" {
  count = local.own_network

  project       = var.project_id
  name          = "${local.name}-postgres"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 24
  network       = google_compute_network.own[0].id
}

resource "google_service_networking_connection" "postgres" {
  count = local.own_network

  network                 = google_compute_network.own[0].id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.postgres[0].name]
  deletion_policy         = "ABANDON" # Google keeps it busy for days after the database has gone

  depends_on = [google_project_service.api]
}
