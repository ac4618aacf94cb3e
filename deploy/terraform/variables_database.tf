# Size, availability and maintenance of the database

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
  description = "GB up to which the database's disk grows by itself; it never shrinks. Measured: 166 bytes a row with its index, 0.23 GB for a month of 1.4 million rows."
  type        = number
  default     = 100

  validation {
    condition     = var.database_disk_limit_gb >= 10 && floor(var.database_disk_limit_gb) == var.database_disk_limit_gb
    error_message = "database_disk_limit_gb is a whole number from 10."
  }
}
