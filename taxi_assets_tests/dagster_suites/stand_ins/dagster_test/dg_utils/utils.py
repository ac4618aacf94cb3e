"""What `dagster_tests/conftest.py` takes from Dagster's unpublished package of test helpers."""


def scrub_tox_uv_project_environment() -> None:
    """Do nothing: the suites do not run under tox here."""
