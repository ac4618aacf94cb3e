"""Substitute our part in every process of a suite, children included."""

from taxi_assets_tests.dagster_suites.parts import substitute

substitute()
