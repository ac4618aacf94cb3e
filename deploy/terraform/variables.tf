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

# What runs load

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
  description = "More TAXI_* settings for all containers, e.g. { TAXI_START_DATE = \"2019-01-01\" }. They are shown in the console: no secret here."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.taxi_settings) : startswith(name, "TAXI_") && !contains(["TAXI_PROFILE", "TAXI_SOURCE", "TAXI_HOME", "TAXI_LAKE"], name)])
    error_message = "taxi_settings takes names that begin with TAXI_, except TAXI_PROFILE, TAXI_SOURCE, TAXI_HOME and TAXI_LAKE, which are set here."
  }
}

variable "taxi_secrets" {
  description = "TAXI_* settings that are secret: name of the setting to id of an existing Secret Manager secret, e.g. { TAXI_ALERT_WEBHOOK = \"taxi-alert-webhook\" }. Daemon and runs may read them."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name, secret in var.taxi_secrets : startswith(name, "TAXI_") && can(regex("^[A-Za-z0-9_-]{1,255}$", secret))])
    error_message = "taxi_secrets maps names that begin with TAXI_ to ids of secrets in this project."
  }
}

# How much of it

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
  description = "When the woken daemon is started whether or not there is work, as cron in New York's time. Every wake costs about two minutes of a vCPU."
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
  description = "GiB of memory of a run, which also holds the month file it downloads."
  type        = number
  default     = 4

  validation {
    condition     = floor(var.run_memory_gib) == var.run_memory_gib && var.run_memory_gib >= 1 && var.run_memory_gib <= { 1 = 4, 2 = 8, 4 = 16, 6 = 24, 8 = 32 }[tostring(var.run_cpu)]
    error_message = "Cloud Run gives at most 4 GiB a vCPU (6 and 8 vCPUs: 24 and 32 GiB), in whole GiB here."
  }
}

variable "database_tier" {
  description = "Machine of Cloud SQL, and with it the database's memory: db-g1-small has 1.7 GB, db-f1-micro 0.6, db-custom-2-7680 7.5. Shared-core ones (db-f1-micro, db-g1-small) are the cheap ones and have no SLA."
  type        = string
  default     = "db-g1-small"

  validation {
    condition     = can(regex("^db-(f1-micro|g1-small|custom-[0-9]+-[0-9]+)$", var.database_tier))
    error_message = "database_tier is db-f1-micro, db-g1-small or db-custom-<vCPUs>-<MiB>."
  }
}

variable "database_availability" {
  description = "ZONAL: one machine, down while its zone is. REGIONAL: a second one in another zone takes over within about a minute, for twice the price of machine and disk."
  type        = string
  default     = "ZONAL"

  validation {
    condition     = contains(["ZONAL", "REGIONAL"], var.database_availability)
    error_message = "database_availability is ZONAL or REGIONAL."
  }
}

variable "maintenance_window" {
  description = "When Cloud SQL may restart the database: day (1 is Monday) and hour, in UTC. The default is Sunday night in New York."
  type        = object({ day = number, hour = number })
  default     = { day = 1, hour = 8 }

  validation {
    condition     = var.maintenance_window.day >= 1 && var.maintenance_window.day <= 7 && var.maintenance_window.hour >= 0 && var.maintenance_window.hour <= 23
    error_message = "maintenance_window is a day from 1 (Monday) to 7 and an hour from 0 to 23, in UTC."
  }
}

variable "final_backup_days" {
  description = "Days for which the backup is kept that is made when the database is destroyed. 0: none is made."
  type        = number
  default     = 30

  validation {
    condition     = var.final_backup_days >= 0 && var.final_backup_days <= 365 && floor(var.final_backup_days) == var.final_backup_days
    error_message = "final_backup_days is a whole number from 0 to 365."
  }
}

variable "database_disk_gb" {
  description = "GB of the database's disk when it is made. It grows by itself; a change here changes nothing."
  type        = number
  default     = 10

  validation {
    condition     = var.database_disk_gb >= 10 && floor(var.database_disk_gb) == var.database_disk_gb && var.database_disk_gb <= var.database_disk_limit_gb
    error_message = "database_disk_gb is a whole number from 10 to database_disk_limit_gb."
  }
}

variable "database_disk_limit_gb" {
  description = "GB up to which the database's disk grows by itself; it never shrinks."
  type        = number
  default     = 100

  validation {
    condition     = var.database_disk_limit_gb >= 10 && floor(var.database_disk_limit_gb) == var.database_disk_limit_gb
    error_message = "database_disk_limit_gb is a whole number from 10."
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
  description = "Whether database, bucket and dataset refuse to be destroyed. Set to false and apply before `terraform destroy`."
  type        = bool
  default     = true
}

# What is there already

variable "existing_database" {
  description = "Name of a Cloud SQL instance for Postgres 14 or later in this project and region that is used in place of a new one. It gets two databases with a user each; its settings, backups and alerts stay its owner's."
  type        = string
  default     = null
}

variable "existing_bucket" {
  description = "Name of a bucket that is the lake in place of a new one, in this region, with uniform access. Its settings stay its owner's; runs may read and write all of it."
  type        = string
  default     = null
}

variable "existing_dataset" {
  description = "Id of a BigQuery dataset of this project that is used in place of a new one, in this region. Runs may edit all of it."
  type        = string
  default     = null
}

variable "enable_private_ip" {
  description = "A private address for the database in place of a public one, which some organizations forbid, and containers that reach it through a network: one that is made, or network and subnetwork."
  type        = bool
  default     = false
}

variable "network" {
  description = "An existing network for enable_private_ip, with private services access: projects/<project>/global/networks/<name>. null: one is made."
  type        = string
  default     = null

  validation {
    condition     = (var.network == null) == (var.subnetwork == null) && (var.network == null || var.enable_private_ip)
    error_message = "network and subnetwork go together, and with enable_private_ip."
  }
}

variable "subnetwork" {
  description = "The containers' subnetwork of network, in this region: projects/<project>/regions/<region>/subnetworks/<name>. A /26 or larger."
  type        = string
  default     = null
}

variable "subnetwork_range" {
  description = "Addresses of the subnetwork that is made for enable_private_ip. Each execution takes some."
  type        = string
  default     = "10.80.0.0/24"

  validation {
    condition     = can(cidrhost(var.subnetwork_range, 0)) && tonumber(split("/", var.subnetwork_range)[1]) <= 26
    error_message = "subnetwork_range is a CIDR range of /26 or larger."
  }
}

# Who gets in

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
    error_message = "ui_members takes user:, group:, serviceAccount: and domain: members. allUsers and allAuthenticatedUsers are refused: the UI has no login of its own."
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

# Who is told

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
