"""`python -m taxi_assets_tests.dagster_suites [PART ...]`: run Dagster's suites with our parts.

Prints every test whose outcome differs from the control run and exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

from taxi_assets import local
from taxi_assets_tests.dagster_suites.parts import PART, PARTS, POSTGRES_URL

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
"""`dagster_test`, which is not published, and the `sitecustomize` that substitutes our parts."""

Outcomes = dict[str, str]


def main() -> int:
    """Run the named parts' suites, or all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m taxi_assets_tests.dagster_suites")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("-k", default="", help="run only the tests that match, as pytest's -k")
    options = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory(prefix="dagster-suites-") as scratch:
        tests = download_tests(Path(scratch))
        for name in options.parts or PARTS:
            control = run_suites(tests, name, options.k, substituted=False)
            ours = run_suites(tests, name, options.k, substituted=True)
            different += report(name, control, ours)
    return 1 if different else 0


def download_tests(folder: Path) -> Path:
    """Download the installed Dagster's source distribution; returns its folder `dagster_tests`."""
    requirement = f"dagster=={version('dagster')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip, "--no-binary", "dagster", "--dest", str(folder), requirement],
        check=True,
    )
    (archive,) = folder.glob("dagster-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz") / "dagster_tests"


def run_suites(tests: Path, name: str, expression: str, *, substituted: bool) -> Outcomes:
    """Run a part's suites; returns the outcome of each test by its name."""
    result = tests.parent / f"{name}-{'ours' if substituted else 'stock'}.xml"
    home = tests.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DAGSTER_")},
        "PYTHONPATH": os.pathsep.join(map(str, (STAND_INS, REPOSITORY, tests.parent))),
        "HOME": str(home),
        **({PART: name} if substituted else {}),
        **({POSTGRES_URL: start_postgres(tests.parent)} if "postgres" in name else {}),
    }
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:bqemulator", "-p", "no:cacheprovider"]
    pytest += ["--timeout", "300", f"--junit-xml={result}", "-k", expression]
    files = [f"dagster_tests/{suite}" for suite in PARTS[name].suites]
    shutil.copy(Path(__file__).with_name("on_postgres.py"), tests)
    completed = subprocess.run(
        [*pytest, *files],
        cwd=tests.parent,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if not result.exists():
        raise RuntimeError(
            f"pytest ended without a result:\n{completed.stdout[-3000:]}{completed.stderr[-2000:]}"
        )
    return read_outcomes(result)


def start_postgres(folder: Path) -> str:
    """Start the embedded Postgres, which ends with its idle timeout; returns the URL."""
    here = local.ensure_stack_running(folder / "taxi")
    return (
        f"postgresql://{here.postgres_user}:{here.postgres_password}@{here.postgres_host}"
        f":{here.postgres_port}/{here.postgres_dbname}"
    )


def read_outcomes(result: Path) -> Outcomes:
    """Read a JUnit file; returns `passed`, `skipped` or the first line of the failure by test."""
    outcomes: Outcomes = {}
    for case in ET.parse(result).iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        name = f"{case.get('classname')}::{case.get('name')}"
        if bad is not None:
            outcomes[name] = f"failed: {(bad.get('message') or '').splitlines()[:1]}"
        else:
            outcomes[name] = "skipped" if case.find("skipped") is not None else "passed"
    return outcomes


def report(name: str, control: Outcomes, ours: Outcomes) -> int:
    """Print what differs between the two runs; returns how many tests do."""
    different = [
        test
        for test in sorted(control.keys() | ours.keys())
        if control.get(test, "not run")[:6] != ours.get(test, "not run")[:6]
    ]
    passed = sum(outcome == "passed" for outcome in ours.values())
    print(f"{name}: {passed} of {len(ours)} passed with ours, {len(different)} differ from stock")
    for test in different:
        print(f"  {test}\n    stock {control.get(test)}\n    ours  {ours.get(test)}")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())
