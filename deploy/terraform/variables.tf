variable "project_id" {
  description = "Project that everything is made in. Several deployments in one project have different names."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is the project's id (my-project-123), neither its name nor its number."
  }
}

variable "name" {
  description = "Beginning of everything's name, so that taxi-dev and taxi-prod fit into one project. With another than taxi the databases and the dataset begin with it too."
  type        = string
  default     = "taxi"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,15}[a-z0-9]$", var.name))
    error_message = "name is 3 to 17 lower-case letters, digits and hyphens: accounts have names of at most 30."
  }
}

variable "region" {
  description = "Region of everything: containers, Postgres, bucket and BigQuery dataset, which must share one. The default is among the cheapest and in Cloud Storage's free tier."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is a region such as us-central1, neither a zone nor a multi-region."
  }
}

variable "image" {
  description = "Image of webserver, daemon and runs, in the repository that the first apply makes. null: the foundation alone."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^[a-z0-9.-]+-docker\\.pkg\\.dev/.+(:[^:@]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image is <image_repository>/taxi:<tag>, or with @sha256:<digest>; output image_repository has the first part."
  }
}

# Source and settings of runs

variable "taxi_source" {
  description = "TAXI_SOURCE: template of the month files' address, see the README's \"Load real data\"."
  type        = string
  default     = "https://d37ci6vzurychx.cloudfront.net/trip-data/{service}_tripdata_{year}-{month}.parquet"

  validation {
    condition     = var.taxi_source == "sample" || alltrue([for part in ["{service}", "{year}", "{month}"] : strcontains(var.taxi_source, part)])
    error_message = "taxi_source is \"sample\" or a template with {service}, {year} and {month}."
  }
}

variable "taxi_settings" {
  description = "More settings of docs/settings.md for all containers, e.g. { TAXI_START_DATE = \"2019-01-01\" }. They are shown in the console: no secret here."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.taxi_settings), local.settings)) == 0
    error_message = "taxi_settings does not take ${join(", ", setsubtract(keys(var.taxi_settings), local.settings))}: it is secret (taxi_secrets), set by another variable, or no setting of docs/settings.md."
  }
}

variable "taxi_secrets" {
  description = "Settings that are secret: name of the setting to id of an existing Secret Manager secret, e.g. { TAXI_ALERT_URLS = \"taxi-alert-urls\" }. Only the containers that need one may read it."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.taxi_secrets), keys(local.secret_settings))) == 0
    error_message = "taxi_secrets takes ${join(", ", keys(local.secret_settings))}."
  }
  validation {
    condition     = alltrue([for secret in values(var.taxi_secrets) : can(regex("^[A-Za-z0-9_-]{1,255}$", secret))])
    error_message = "taxi_secrets maps settings to ids of secrets in this project."
  }
}

# Size of runs

variable "daemon" {
  description = "Dagster's daemon: schedules, sensors, the run queue and backfills. woken: started every hour and for work from the UI, ended when nothing is left to do. always: one that stays, for schedules to the minute and 53 dollars a month more. off: none."
  type        = string
  default     = "woken"

  validation {
    condition     = contains(["woken", "always", "off"], var.daemon)
    error_message = "daemon is woken, always or off."
  }
}

variable "wake_schedule" {
  description = "When the woken daemon is started whether or not there is work, as cron in New York's time. Every wake costs about two minutes of a vCPU. The alert for a silent daemon comes after 2.5 hours for an hourly one, after 23.5 hours for a rarer one, and not at all for less than two a day."
  type        = string
  default     = "2 * * * *"

  validation {
    condition     = length(split(" ", var.wake_schedule)) == 5
    error_message = "wake_schedule is a cron expression of five fields."
  }
}

variable "run_cpu" {
  description = "vCPUs of a run."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2, 4, 6, 8], var.run_cpu)
    error_message = "Cloud Run gives 1, 2, 4, 6 or 8 vCPUs."
  }
}

variable "run_memory_gib" {
  description = "GiB of memory of a run, which also holds the month file it downloads. Measured without files: 0.4 GiB for a month of 1.4 million rows, 0.5 for one of 4 million, 1.1 for one of 20 million (fhvhv), whose file is half a GB."
  type        = number
  default     = 4

  validation {
    condition     = floor(var.run_memory_gib) == var.run_memory_gib && var.run_memory_gib >= 1 && var.run_memory_gib <= { 1 = 4, 2 = 8, 4 = 16, 6 = 24, 8 = 32 }[tostring(var.run_cpu)]
    error_message = "Cloud Run gives at most 4 GiB a vCPU (6 and 8 vCPUs: 24 and 32 GiB), in whole GiB here."
  }
}

variable "password_version" {
  description = "Count it up to change both database passwords."
  type        = number
  default     = 1

  validation {
    condition     = var.password_version >= 1 && floor(var.password_version) == var.password_version
    error_message = "password_version is a whole number from 1."
  }
}

variable "lake_cold_after_days" {
  description = "Days after which raw slices, read again only when a day is loaded again, move to Coldline."
  type        = number
  default     = 90

  validation {
    condition     = var.lake_cold_after_days >= 1
    error_message = "lake_cold_after_days is at least 1."
  }
}

variable "deletion_protection" {
  description = "Whether database, bucket and dataset are protected from deletion. Set to false and apply before `terraform destroy`."
  type        = bool
  default     = true
}

# Access

variable "database_readers" {
  description = "Who may log in to the database with a Google account, as IAM members (user:, group:, serviceAccount:). What they may read is granted in Postgres: README, \"Read the trips\". The first one restarts the database."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.database_readers : can(regex("^(user|group|serviceAccount):[^@]+@.+", member))])
    error_message = "database_readers takes user:, group: and serviceAccount: members."
  }
}

variable "enable_cloud_build" {
  description = "An account that builds the image on Google's machines, for those without Docker."
  type        = bool
  default     = false
}

variable "ui_members" {
  description = "Who may open the UI, as IAM members: [\"user:me@gmail.com\"]. Dagster has no login of its own: whoever opens the UI can run everything."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.ui_members : can(regex("^(user|group|serviceAccount|domain):.+", member))])
    error_message = "ui_members takes user:, group:, serviceAccount: and domain: members. allUsers and allAuthenticatedUsers are not allowed: the UI has no login of its own."
  }
}

variable "enable_iap" {
  description = "A Google sign-in page in front of the UI (Identity-Aware Proxy). Needs a project in an organization, which free-trial accounts have not; without it the UI opens through `gcloud run services proxy`."
  type        = bool
  default     = false
}

variable "enable_load_balancer" {
  description = "A load balancer with a domain of your own and a managed certificate in front of the UI."
  type        = bool
  default     = false

  validation {
    condition     = !var.enable_load_balancer || var.domain != null
    error_message = "enable_load_balancer needs domain."
  }
}

variable "domain" {
  description = "Domain of the load balancer; its A record must point to output load_balancer_address."
  type        = string
  default     = null

  validation {
    condition     = var.domain == null || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain is a host name such as taxi.example.com."
  }
}

variable "enable_cloud_armor" {
  description = "Let only allowed_ip_ranges through the load balancer. Free-trial accounts have no quota for security policies."
  type        = bool
  default     = false

  validation {
    condition     = !var.enable_cloud_armor || (var.enable_load_balancer && length(var.allowed_ip_ranges) > 0)
    error_message = "enable_cloud_armor needs enable_load_balancer and allowed_ip_ranges."
  }
}

variable "allowed_ip_ranges" {
  description = "CIDR ranges that Cloud Armor lets through."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for range in var.allowed_ip_ranges : can(cidrhost(range, 0))])
    error_message = "allowed_ip_ranges takes CIDR ranges such as 203.0.113.0/24."
  }
  validation {
    condition     = length(var.allowed_ip_ranges) <= 10
    error_message = "A rule of Cloud Armor takes ten ranges."
  }
}

# Alerts

variable "log_retention_days" {
  description = "Days for which step output is kept, and log lines if more than the project's 30."
  type        = number
  default     = 30

  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 3650 && floor(var.log_retention_days) == var.log_retention_days
    error_message = "log_retention_days is a whole number from 1 to 3650."
  }
}

variable "alert_emails" {
  description = "Addresses told of failed runs, a silent daemon, a full database and failed backups. Without any, incidents are in the console only."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "alert_emails takes e-mail addresses."
  }
}

variable "billing_account" {
  description = "Billing account to make a budget on; needs the role Billing Account Costs Manager there. null: no budget."
  type        = string
  default     = null

  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account looks like 012345-6789AB-CDEF01."
  }
}

variable "monthly_budget" {
  description = "Amount of the budget, in the billing account's currency; mails go out at 50, 90 and 100 %. It stops nothing."
  type        = number
  default     = 100

  validation {
    condition     = var.monthly_budget >= 1 && floor(var.monthly_budget) == var.monthly_budget
    error_message = "monthly_budget is a whole number from 1."
  }
}
