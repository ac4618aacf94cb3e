# What is refused before anything is made.

variables {
  project_id = "my-project-123"
}

run "a_public_ui" {
  command = plan
  variables {
    ui_members = ["allUsers"]
  }
  expect_failures = [var.ui_members]
}

run "a_ui_for_every_google_account" {
  command = plan
  variables {
    ui_members = ["user:me@example.com", "allAuthenticatedUsers"]
  }
  expect_failures = [var.ui_members]
}

run "a_load_balancer_without_a_domain" {
  command = plan
  variables {
    enable_load_balancer = true
  }
  expect_failures = [var.enable_load_balancer]
}

run "armor_without_a_load_balancer" {
  command = plan
  variables {
    enable_cloud_armor = true
    allowed_ip_ranges  = ["203.0.113.0/24"]
  }
  expect_failures = [var.enable_cloud_armor]
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

run "an_image_from_elsewhere" {
  command = plan
  variables {
    image = "python:3.11-slim"
  }
  expect_failures = [var.image]
}

run "an_image_without_a_tag" {
  command = plan
  variables {
    image = "us-central1-docker.pkg.dev/my-project-123/taxi/taxi"
  }
  expect_failures = [var.image]
}

run "more_memory_than_cloud_run_gives" {
  command = plan
  variables {
    run_cpu        = 1
    run_memory_gib = 8
  }
  expect_failures = [var.run_memory_gib]
}

run "a_project_number" {
  command = plan
  variables {
    project_id = "123456789012"
  }
  expect_failures = [var.project_id]
}

run "a_zone_for_a_region" {
  command = plan
  variables {
    region = "us-central1-a"
  }
  expect_failures = [var.region]
}

run "a_source_that_names_no_month" {
  command = plan
  variables {
    taxi_source = "/data/yellow.csv"
  }
  expect_failures = [var.taxi_source]
}

run "a_setting_that_is_made_here" {
  command = plan
  variables {
    taxi_settings = { TAXI_PROFILE = "local" }
  }
  expect_failures = [var.taxi_settings]
}

run "a_password_as_a_setting" {
  command = plan
  variables {
    taxi_settings = { POSTGRES_PASSWORD = "secret" }
  }
  expect_failures = [var.taxi_settings]
}

run "an_alert_url_as_a_setting" {
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

run "a_secret_that_is_no_secret_setting" {
  command = plan
  variables {
    taxi_secrets = { TAXI_DROP = "taxi-drop" }
  }
  expect_failures = [var.taxi_secrets]
}

run "a_secret_by_its_full_name" {
  command = plan
  variables {
    taxi_secrets = { TAXI_ALERT_URLS = "projects/my-project-123/secrets/taxi-alert-urls" }
  }
  expect_failures = [var.taxi_secrets]
}

run "no_ranges_but_addresses" {
  command = plan
  variables {
    allowed_ip_ranges = ["203.0.113.7"]
  }
  expect_failures = [var.allowed_ip_ranges]
}

run "a_daemon_of_another_kind" {
  command = plan
  variables {
    daemon = "sometimes"
  }
  expect_failures = [var.daemon]
}

run "a_wake_by_words" {
  command = plan
  variables {
    wake_schedule = "every hour"
  }
  expect_failures = [var.wake_schedule]
}

run "a_name_that_is_too_long" {
  command = plan
  variables {
    name = "taxi-for-the-whole-company"
  }
  expect_failures = [var.name]
}

run "a_network_without_its_subnetwork" {
  command = plan
  variables {
    enable_private_ip = true
    network           = "projects/house/global/networks/main"
  }
  expect_failures = [var.network]
}

run "a_network_without_private_address" {
  command = plan
  variables {
    network    = "projects/house/global/networks/main"
    subnetwork = "projects/house/regions/us-central1/subnetworks/run"
  }
  expect_failures = [var.network]
}

run "a_subnetwork_that_is_too_small" {
  command = plan
  variables {
    subnetwork_range = "10.0.0.0/28"
  }
  expect_failures = [var.subnetwork_range]
}

run "a_disk_above_its_limit" {
  command = plan
  variables {
    database_disk_gb = 200
  }
  expect_failures = [var.database_disk_gb]
}

run "an_availability_of_another_kind" {
  command = plan
  variables {
    database_availability = "GLOBAL"
  }
  expect_failures = [var.database_availability]
}

run "a_day_that_is_none" {
  command = plan
  variables {
    maintenance_window = { day = 0, hour = 8 }
  }
  expect_failures = [var.maintenance_window]
}

run "a_backup_for_ever" {
  command = plan
  variables {
    final_backup_days = 1000
  }
  expect_failures = [var.final_backup_days]
}

run "everyone_as_reader" {
  command = plan
  variables {
    database_readers = ["allUsers"]
  }
  expect_failures = [var.database_readers]
}

run "logs_for_no_time" {
  command = plan
  variables {
    log_retention_days = 0
  }
  expect_failures = [var.log_retention_days]
}
