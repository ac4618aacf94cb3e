# Invalid values, rejected before anything is created. Each run has one for each of its variables.

variables {
  project_id = "my-project-123"
}

run "values" {
  command = plan
  variables {
    allowed_ip_ranges     = ["203.0.113.7"] # an address
    daemon                = "sometimes"
    database_availability = "GLOBAL"
    database_disk_gb      = 200 # above the limit
    database_readers      = ["allUsers"]
    final_backup_days     = 1000
    image                 = "python:3.11-slim" # not of the project
    log_retention_days    = 0
    maintenance_window    = { day = 0, hour = 8 }
    name                  = "taxi-for-the-whole-company" # too long
    project_id            = "123456789012"               # the project's number
    region                = "us-central1-a"              # a zone
    subnetwork_range      = "10.0.0.0/28"                # too small
    taxi_secrets          = { TAXI_DROP = "taxi-drop" }  # not a secret setting
    taxi_settings         = { TAXI_PROFILE = "local" }   # set by the configuration
    taxi_source           = "/data/yellow.csv"           # without a month
    ui_members            = ["allUsers"]
    wake_schedule         = "every hour"
  }
  expect_failures = [
    var.allowed_ip_ranges,
    var.daemon,
    var.database_availability,
    var.database_disk_gb,
    var.database_readers,
    var.final_backup_days,
    var.image,
    var.log_retention_days,
    var.maintenance_window,
    var.name,
    var.project_id,
    var.region,
    var.subnetwork_range,
    var.taxi_secrets,
    var.taxi_settings,
    var.taxi_source,
    var.ui_members,
    var.wake_schedule,
  ]
}

run "other_values" {
  command = plan
  variables {
    image         = "us-central1-docker.pkg.dev/my-project-123/taxi/taxi" # without a tag
    taxi_secrets  = { TAXI_ALERT_URLS = "projects/my-project-123/secrets/taxi-alert-urls" }
    taxi_settings = { POSTGRES_PASSWORD = "secret" }
    ui_members    = ["user:me@example.com", "allAuthenticatedUsers"]
  }
  expect_failures = [var.image, var.taxi_secrets, var.taxi_settings, var.ui_members]
}

run "a_secret_as_a_setting" {
  command = plan
  variables {
    taxi_settings = { TAXI_ALERT_URLS = "slack://A/B/C" }
  }
  expect_failures = [var.taxi_settings]
}

run "a_mistyped_setting" {
  command = plan
  variables {
    taxi_settings = { TAXI_DROP_ = "none" }
  }
  expect_failures = [var.taxi_settings]
}

run "parts_without_what_they_need" {
  command = plan
  variables {
    enable_load_balancer = true # without a domain
    enable_private_ip    = true
    network              = "projects/house/global/networks/main" # without its subnetwork
    run_cpu              = 1
    run_memory_gib       = 8 # more than one CPU may have
  }
  expect_failures = [var.enable_load_balancer, var.network, var.run_memory_gib]
}

run "armor_without_a_load_balancer_and_a_network_without_a_private_address" {
  command = plan
  variables {
    enable_cloud_armor = true
    allowed_ip_ranges  = ["203.0.113.0/24"]
    network            = "projects/house/global/networks/main"
    subnetwork         = "projects/house/regions/us-central1/subnetworks/run"
  }
  expect_failures = [var.enable_cloud_armor, var.network]
}

run "armor_without_ranges" {
  command = plan
  variables {
    enable_iap           = true
    enable_load_balancer = true
    enable_cloud_armor   = true
    domain               = "taxi.example.com"
  }
  expect_failures = [var.enable_cloud_armor]
}
