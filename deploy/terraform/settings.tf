# The settings (docs/settings.md) that `taxi_settings` and `taxi_secrets` accept: all except those that
# run.tf sets, emulators and the key file. A test compares the lists.

locals {
  settings = [
    "TAXI_SERVICES", "TAXI_START_DATE", "TAXI_END_DATE", "TAXI_MAX_PARTITIONS_PER_RUN", "TAXI_OWNERS", "TAXI_RETRY_DELAY",
    "TAXI_POSTGRES_POOL", "TAXI_BIGQUERY_POOL",
    "TAXI_MAX_DAY_BYTES", "TAXI_MAX_DOWNLOAD_BYTES", "TAXI_DOWNLOAD_TIMEOUT_SECONDS",
    "TAXI_DROP", "TAXI_MAX_INVALID_RATIO", "TAXI_UNUSUAL_DEVIATIONS",
    "TAXI_LOCK_TIMEOUT", "TAXI_DOWNLOAD_RETENTION_DAYS", "TAXI_TEMP_RETENTION_HOURS", "TAXI_RAW_RETENTION_DAYS", "TAXI_RUN_RETENTION_DAYS",
    "POSTGRES_SCHEMA", "POSTGRES_CONNECT_TIMEOUT", "POSTGRES_TIMEOUT", "POSTGRES_READER_USER",
    "TAXI_LAKE_LAYOUT", "GCS_RETRY_SECONDS",
    "BIGQUERY_TIMEOUT", "BIGQUERY_REQUIRE_PARTITION_FILTER", "BIGQUERY_CLUSTER_BY", "BIGQUERY_PARTITION_EXPIRATION_DAYS", "BIGQUERY_LABELS",
    "TAXI_AUTOMATION", "TAXI_SCHEDULE_LAG_DAYS", "TAXI_MONTHS_PER_TICK", "TAXI_SENSOR_INTERVAL_SECONDS",
    "TAXI_ALERT_ON", "TAXI_UI_URL", "TAXI_RUN_TIME_LIMIT_HOURS",
  ]

  # The accounts that read each setting. The sensors of alerts run in the daemon, and the webserver shows
  # whether they run, which depends on these settings.
  secret_settings = {
    POSTGRES_READER_PASSWORD = ["runner"]
    TAXI_ALERT_URLS          = ["webserver", "daemon"]
    TAXI_HEARTBEAT_URL       = ["webserver", "daemon"]
    TAXI_ZONES               = ["runner"] # a signed address is one
  }
}
