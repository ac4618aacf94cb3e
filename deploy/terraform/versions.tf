terraform {
  # Ephemeral resources and write-only arguments, which keep the passwords out of the state.
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 8.7"
    }
    random = {
      source  = "hashicorp/random"
      version = "~> 3.7"
    }
  }
}

# Credentials are those of `gcloud auth application-default login`: no key file, no variable.
provider "google" {
  project = var.project_id
  region  = var.region

  # Budgets refuse a user's credentials without a project to bill the call to.
  billing_project       = var.project_id
  user_project_override = true

  default_labels = { app = local.name }
}
