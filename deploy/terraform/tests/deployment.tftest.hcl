# The second apply, with an image: what runs, and who gets in, by default and with each toggle.

variables {
  project_id = "my-project-123"
  image      = "us-central1-docker.pkg.dev/my-project-123/taxi/taxi:1"
  ui_members = ["user:me@example.com"]
}

run "a_run_is_one_execution_never_tried_again" {
  command = plan

  assert {
    condition     = google_cloud_run_v2_job.run[0].template[0].template[0].max_retries == 0 && google_cloud_run_v2_job.run[0].template[0].task_count == 1
    error_message = "Dagster retries runs, Cloud Run must not."
  }
  assert {
    condition     = length(coalesce(google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].command, [])) == 0
    error_message = "The launcher gives arguments alone: a command would stay in front of them."
  }
  assert {
    condition     = google_cloud_run_v2_job.run[0].name == "taxi-run" && google_cloud_run_v2_job.run[0].template[0].template[0].timeout == "14400s"
    error_message = "Name and time-out are those of dagster-gcp.yaml."
  }
  assert {
    condition     = local.concurrent_runs == 10
    error_message = "The run queue bounds the executions, and with them the connections to Postgres."
  }
  assert {
    condition     = google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].resources[0].limits == tomap({ cpu = "2", memory = "4Gi" })
    error_message = "Size of a run."
  }
}

run "private_and_cheap_by_default" {
  command = plan

  assert {
    condition     = length(google_compute_global_forwarding_rule.ui) + length(google_compute_security_policy.ui) + length(google_iap_web_cloud_run_service_iam_member.ui) + length(google_billing_budget.monthly) == 0
    error_message = "The defaults must work on a free-trial account."
  }
  assert {
    condition     = !google_cloud_run_v2_service.webserver[0].iap_enabled && google_cloud_run_v2_service.webserver[0].template[0].scaling[0].min_instance_count == 0
    error_message = "The webserver scales to zero."
  }
  assert {
    condition     = keys(google_cloud_run_v2_service_iam_member.ui) == ["user:me@example.com"]
    error_message = "The UI is private."
  }
  assert {
    condition     = output.open_ui == "gcloud run services proxy taxi-webserver --project my-project-123 --region us-central1 --port 3000"
    error_message = "The UI opens through gcloud's proxy."
  }
  assert {
    condition     = length(google_cloud_run_v2_worker_pool.daemon) == 0 && length(google_cloud_run_v2_job.daemon) == 1
    error_message = "No daemon that costs money all day."
  }
}

run "nobody_without_members" {
  command = plan

  variables {
    ui_members = []
  }

  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.ui) == 0
    error_message = "No member, no way in."
  }
}

run "secrets_by_role" {
  command = plan

  assert {
    condition = (
      contains(google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].env[*].name, "POSTGRES_PASSWORD") &&
      !contains(google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].env[*].name, "POSTGRES_PASSWORD") &&
      !contains(google_cloud_run_v2_service.webserver[0].template[0].containers[0].env[*].name, "POSTGRES_PASSWORD")
    )
    error_message = "Only runs have the password of the trips' database."
  }
}

run "a_setting_reaches_every_container" {
  command = plan

  variables {
    taxi_settings = { TAXI_SERVICES = "yellow,fhvhv", BIGQUERY_CLUSTER_BY = "pulocationid", POSTGRES_READER_USER = "taxi_reader" }
  }

  assert {
    condition = alltrue([
      for env in [
        google_cloud_run_v2_service.webserver[0].template[0].containers[0].env,
        google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].env,
        google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].env,
      ] : length(setsubtract(keys(var.taxi_settings), env[*].name)) == 0
    ])
    error_message = "All of them load the same definitions."
  }
}

run "alerts" {
  command = plan

  variables {
    alert_emails = ["me@example.com"]
  }

  assert {
    condition     = length(google_monitoring_alert_policy.failed_runs[0].conditions) == 2 && length(google_monitoring_alert_policy.daemon_silent) == 1
    error_message = "Failed runs, lost runs, a silent daemon."
  }
  assert {
    condition     = length(google_monitoring_notification_channel.email) == 1
    error_message = "A channel an address."
  }
}

run "a_woken_daemon" {
  command = plan

  assert {
    condition     = google_cloud_run_v2_job.daemon[0].name == "taxi-daemon" && google_cloud_run_v2_job.daemon[0].template[0].task_count == 1
    error_message = "One task: a second daemon would only wait for the first."
  }
  assert {
    condition     = google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].command == tolist(["python", "-m", "taxi_assets.dagster_internals.woken_daemon"]) && google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].args == tolist(["taxi_assets.definitions"])
    error_message = "The job's own command: nobody may give it another."
  }
  assert {
    condition     = google_cloud_scheduler_job.wake[0].schedule == "2 * * * *" && google_cloud_scheduler_job.wake[0].http_target[0].http_method == "POST"
    error_message = "Schedules fire within their hour."
  }
  assert {
    condition = (
      contains(google_cloud_run_v2_service.webserver[0].template[0].containers[0].env[*].name, "CLOUD_RUN_DAEMON_JOB") &&
      !contains(google_cloud_run_v2_job.daemon[0].template[0].template[0].containers[0].env[*].name, "CLOUD_RUN_DAEMON_JOB") &&
      !contains(google_cloud_run_v2_job.run[0].template[0].template[0].containers[0].env[*].name, "CLOUD_RUN_DAEMON_JOB")
    )
    error_message = "The webserver wakes the daemon, which wakes nobody."
  }
  assert {
    condition     = google_monitoring_alert_policy.daemon_silent[0].conditions[0].condition_absent[0].duration == "9000s" && strcontains(google_logging_metric.this["heartbeats"].filter, "resource.labels.job_name=\"taxi-daemon\"")
    error_message = "Two wakes that did not come are an incident."
  }
}

run "a_daemon_that_is_always_there" {
  command = plan

  variables {
    daemon = "always"
  }

  assert {
    condition     = google_cloud_run_v2_worker_pool.daemon[0].scaling[0].manual_instance_count == 1
    error_message = "One daemon."
  }
  assert {
    condition     = length(google_cloud_run_v2_job.daemon) + length(google_cloud_scheduler_job.wake) + length(google_cloud_run_v2_job_iam_member.daemon) == 0
    error_message = "Nobody needs to wake it."
  }
  assert {
    condition     = !contains(google_cloud_run_v2_service.webserver[0].template[0].containers[0].env[*].name, "CLOUD_RUN_DAEMON_JOB") && !contains(keys(google_service_account.this), "waker")
    error_message = "Nobody needs the right to wake it."
  }
  assert {
    condition     = google_monitoring_alert_policy.daemon_silent[0].conditions[0].condition_absent[0].duration == "600s" && strcontains(google_logging_metric.this["heartbeats"].filter, "cloud_run_worker_pool")
    error_message = "Ten minutes of silence are an incident."
  }
}

run "daemon_off" {
  command = plan

  variables {
    daemon = "off"
  }

  assert {
    condition     = length(google_cloud_run_v2_worker_pool.daemon) + length(google_cloud_run_v2_job.daemon) + length(google_cloud_scheduler_job.wake) == 0
    error_message = "No daemon, no cost of one."
  }
  assert {
    condition     = length(google_monitoring_alert_policy.daemon_silent) == 0
    error_message = "A daemon that is off is silent."
  }
}

run "iap_alone" {
  command = plan

  variables {
    enable_iap = true
  }

  assert {
    condition     = google_cloud_run_v2_service.webserver[0].iap_enabled && keys(google_iap_web_cloud_run_service_iam_member.ui) == ["user:me@example.com"]
    error_message = "Members sign in with IAP."
  }
  assert {
    condition     = keys(google_cloud_run_v2_service_iam_member.ui) == ["iap"]
    error_message = "With IAP only IAP invokes the service."
  }
  assert {
    condition     = length(google_compute_global_forwarding_rule.ui) == 0 && contains(keys(google_project_service.api), "iap")
    error_message = "IAP needs no load balancer."
  }
}

run "load_balancer_alone" {
  command = plan

  variables {
    enable_load_balancer = true
    domain               = "taxi.example.com"
  }

  assert {
    condition     = length(google_compute_global_forwarding_rule.ui) == 1 && length(google_compute_security_policy.ui) == 0
    error_message = "A load balancer needs no Cloud Armor."
  }
  assert {
    condition     = google_cloud_run_v2_service.webserver[0].ingress == "INGRESS_TRAFFIC_ALL" && keys(google_cloud_run_v2_service_iam_member.ui) == ["user:me@example.com"]
    error_message = "Without IAP gcloud's proxy stays the way in, for members only."
  }

  expect_failures = [check.browsers_get_in]
}

run "load_balancer_with_iap_and_armor" {
  command = plan

  variables {
    enable_iap           = true
    enable_load_balancer = true
    enable_cloud_armor   = true
    domain               = "taxi.example.com"
    allowed_ip_ranges    = ["203.0.113.0/24"]
    billing_account      = "012345-6789AB-CDEF01"
  }

  assert {
    condition     = google_cloud_run_v2_service.webserver[0].ingress == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    error_message = "The load balancer is the only way in."
  }
  assert {
    condition     = keys(google_iap_web_cloud_run_service_iam_member.ui) == ["user:me@example.com"]
    error_message = "Members sign in with IAP behind the load balancer too."
  }
  assert {
    condition     = length(google_compute_security_policy.ui) == 1 && length(google_billing_budget.monthly) == 1
    error_message = "Everything on."
  }
  assert {
    condition     = output.open_ui == "https://taxi.example.com"
    error_message = "The UI opens at the domain."
  }
}
