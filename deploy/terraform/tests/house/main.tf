# Existing resources: two deployments in one project, with the caller's provider.

terraform {
  required_version = ">= 1.11"
}

provider "google" {
  project        = "another-project"
  region         = "europe-west1"
  default_labels = { team = "data" }
}

module "prod" {
  source = "../.."

  project_id = "my-project-123"
  name       = "taxi-prod"
  image      = "us-central1-docker.pkg.dev/my-project-123/taxi-prod/taxi:1"
}

module "dev" {
  source = "../.."

  project_id        = "my-project-123"
  name              = "taxi-dev"
  image             = "us-central1-docker.pkg.dev/my-project-123/taxi-prod/taxi:1"
  existing_database = "taxi-prod-postgres"
  daemon            = "off"

  depends_on = [module.prod]
}
