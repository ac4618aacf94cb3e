"""Typed access to the source, Postgres, the lake and BigQuery, as the environment names them."""
