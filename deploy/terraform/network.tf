# A private address for the database, for organizations that allow no public ones. Either a network of
# its own, or one that exists and already has private services access.

locals {
  own_network = var.enable_private_ip && var.network == null ? 1 : 0
  network     = var.enable_private_ip ? coalesce(var.network, one(google_compute_network.own[*].id)) : null
  subnetwork  = var.enable_private_ip ? coalesce(var.subnetwork, one(google_compute_subnetwork.own[*].id)) : null
  # Each container's way in. What is not private, the source of the trips say, goes the direct way.
  vpc_access = var.enable_private_ip ? ["PRIVATE_RANGES_ONLY"] : []
}

resource "google_compute_network" "own" {
  # checkov:skip=CKV2_GCP_18: no machine is in it, and a network that is made has no firewall rule that lets anything in
  count = local.own_network

  project                 = var.project_id
  name                    = local.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "own" {
  # checkov:skip=CKV_GCP_26: flow logs of connections to one database say nothing and cost by the gigabyte
  # checkov:skip=CKV_GCP_76: there is no IPv6 in it to give private access to
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
