#!/usr/bin/env bash
# Everything that can be seen without a cloud: format, types, the tests, what a plan holds, checkov.
# TERRAFORM and CHECKOV name other commands than those on PATH. --offline has the tests' stand-in for
# Google's provider in place of a registry's: Terraform's core is the real one all the same.
set -euo pipefail
cd "$(dirname "$0")"

repository=$PWD/../..
if [[ ${1-} == --offline ]]; then
    export PYTHONPATH=$repository
    TERRAFORM="$repository/.venv/bin/python -m taxi_assets_tests.deploy.google_provider"
fi
terraform=${TERRAFORM:-terraform}
checkov=${CHECKOV:-checkov}
plan=$(mktemp -d)
trap 'rm -r "$plan"' EXIT

# Asked for nothing: no state is read, nothing is made.
export GOOGLE_OAUTH_ACCESS_TOKEN=none TF_IN_AUTOMATION=1

$terraform fmt -check -diff -recursive
$terraform init -backend=false -input=false >"$plan/init" || { cat "$plan/init"; exit 1; }
$terraform validate
$terraform test
plan() { # file variable...
    $terraform plan -input=false -refresh=false -out="$plan/$1" \
        -var project_id=my-project-123 -var 'ui_members=["user:me@example.com"]' \
        -var image=us-central1-docker.pkg.dev/my-project-123/taxi/taxi:1 "${@:2}" >"$plan/log" || { cat "$plan/log" >&2; exit 1; }
    $terraform show -json "$plan/$1"
}
plan defaults | python3 check_plan.py
plan everything -var enable_cloud_build=true -var enable_iap=true -var enable_private_ip=true \
    -var enable_load_balancer=true -var domain=taxi.example.com -var enable_cloud_armor=true \
    -var 'allowed_ip_ranges=["203.0.113.0/24"]' -var 'database_readers=["user:ana@example.com"]' \
    -var 'taxi_secrets={TAXI_ALERT_URLS="taxi-alert-urls"}' -var log_retention_days=90 \
    -var billing_account=012345-6789AB-CDEF01 | python3 check_plan.py everything
# As a module, twice in one project, with the provider of its caller.
(cd tests/house && $terraform init -backend=false -input=false >"$plan/house" && $terraform validate) || { cat "$plan/house"; exit 1; }
$checkov --directory . --framework terraform --skip-download --quiet --compact
