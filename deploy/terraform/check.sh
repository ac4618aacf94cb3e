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
$terraform plan -input=false -refresh=false -out="$plan/plan" \
    -var project_id=my-project-123 -var 'ui_members=["user:me@example.com"]' \
    -var image=us-central1-docker.pkg.dev/my-project-123/taxi/taxi:1 >"$plan/log" || { cat "$plan/log"; exit 1; }
$terraform show -json "$plan/plan" | python3 check_plan.py
$checkov --directory . --framework terraform --skip-download --quiet --compact
