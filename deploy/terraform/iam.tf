# The accounts and their roles. Each role is on one resource, or restricted to one by a condition, except
# the permission to start BigQuery jobs, which only exists for the project.

resource "google_service_account" "this" {
  for_each = merge(
    {
      webserver = "Shows the UI, cancels runs, wakes the daemon"
      daemon    = "Schedules, queues, launches and watches runs"
      runner    = "Runs: moves the data"
    },
    var.enable_cloud_build ? { builder = "Cloud Build's: builds and pushes the image" } : {},
    var.daemon == "woken" ? { waker = "Cloud Scheduler's: wakes the daemon" } : {},
  )

  project      = var.project_id
  account_id   = "${local.name}-${each.key}"
  display_name = "taxi_assets ${each.key}"
  description  = each.value

  depends_on = [google_project_service.api]
}

locals {
  members = { for role, account in google_service_account.this : role => account.member }
  clients = toset(["webserver", "daemon", "runner"])

  this_instance = "resource.name == 'projects/${var.project_id}/instances/${local.instance}' && resource.type == 'sqladmin.googleapis.com/Instance'"

  bucket_roles = {
    # Both read the bucket: Dagster to check that it exists, BigQuery for the location of the lake.
    "webserver logs" = ["legacyBucketReader", "objectViewer"]
    "daemon logs"    = ["legacyBucketReader", "objectUser"]
    "runner logs"    = ["legacyBucketReader", "objectUser"]
    "runner lake"    = ["legacyBucketReader", "objectUser"]
  }
  job_roles = {
    webserver = ["jobsExecutor"]                        # to cancel
    daemon    = ["jobsExecutorWithOverrides", "viewer"] # to launch with a run's arguments, to look
  }
  secret_readers = {
    dagster = ["webserver", "daemon", "runner"]
    taxi    = ["runner"]
  }
}

resource "google_project_iam_member" "database" {
  for_each = local.clients

  project = var.project_id
  role    = "roles/cloudsql.client"
  member  = local.members[each.key]

  condition {
    title      = "${local.name}-postgres-only"
    expression = local.this_instance
  }
}

resource "google_secret_manager_secret_iam_member" "database" {
  for_each = merge([
    for database, readers in local.secret_readers : {
      for reader in readers : "${reader} ${database}" => { database = database, reader = reader }
    }
  ]...)

  project   = var.project_id
  secret_id = google_secret_manager_secret.database[each.value.database].id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.members[each.value.reader]
}

resource "google_secret_manager_secret_iam_member" "setting" {
  # Once for each account and secret, even if several settings use it.
  for_each = {
    for pair in toset(flatten([
      for name, secret in var.taxi_secrets : [for reader in local.secret_settings[name] : "${reader} ${secret}"]
    ])) : pair => { reader = split(" ", pair)[0], secret = split(" ", pair)[1] }
  }

  project   = var.project_id
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = local.members[each.value.reader]

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = merge([
    for pair, roles in local.bucket_roles : {
      for role in roles : "${pair} ${role}" => {
        account = split(" ", pair)[0], bucket = split(" ", pair)[1], role = role
      }
    }
  ]...)

  bucket = { lake = local.lake, logs = google_storage_bucket.logs.name }[each.value.bucket]
  role   = "roles/storage.${each.value.role}"
  member = local.members[each.value.account]
}

resource "google_bigquery_dataset_iam_member" "runner" {
  project    = var.project_id
  dataset_id = local.dataset
  role       = "roles/bigquery.dataEditor"
  member     = local.members["runner"]
}

resource "google_project_iam_member" "bigquery_jobs" {
  project = var.project_id
  role    = "roles/bigquery.jobUser"
  member  = local.members["runner"]
}

resource "google_cloud_run_v2_job_iam_member" "this" {
  for_each = merge([
    for account, roles in local.job_roles : {
      for role in roles : "${account} ${role}" => { account = account, role = role } if local.deploy
    }
  ]...)

  project  = var.project_id
  name     = google_cloud_run_v2_job.run[0].name
  location = var.region
  role     = "roles/run.${each.value.role}"
  member   = local.members[each.value.account]
}

# Permission to start the daemon's job, without arguments.
resource "google_cloud_run_v2_job_iam_member" "daemon" {
  for_each = local.deploy && var.daemon == "woken" ? toset(["webserver", "waker"]) : toset([])

  project  = var.project_id
  name     = google_cloud_run_v2_job.daemon[0].name
  location = var.region
  role     = "roles/run.jobsExecutor"
  member   = local.members[each.key]
}

# Permission to connect to the database and to log in with a Google account.
resource "google_project_iam_member" "reader" {
  for_each = {
    for pair in setproduct(["client", "instanceUser"], var.database_readers) : join(" ", pair) => { role = pair[0], member = pair[1] }
  }

  project = var.project_id
  role    = "roles/cloudsql.${each.value.role}"
  member  = each.value.member

  condition {
    title      = "${local.name}-postgres-only"
    expression = local.this_instance
  }
}
