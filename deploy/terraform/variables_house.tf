# Existing resources

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
