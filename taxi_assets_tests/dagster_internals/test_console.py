"""The console of a run prints an expected error in one line, and any other with its stack."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.errors import SettingsError, SourceError, UnavailableError
from taxi_assets_tests.conftest import REPOSITORY

SETTINGS = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
KEY, DAYS = dg.AssetKey(["green", "raw_trips"]), ["2021-01-05"]
STACK = "Stack Trace:"


def raise_terminal() -> None:
    """Fail as an asset does whose file is broken."""
    with name_asset_in_errors(KEY, DAYS):
        raise SourceError("the file is broken") from KeyError("cause")


def raise_unavailable() -> None:
    """Fail as an asset does whose server is away."""
    with name_asset_in_errors(KEY, DAYS):
        raise UnavailableError("start the server") from ConnectionRefusedError("port 5432")


def raise_settings() -> None:
    """Fail outside the asset's own code."""
    raise SettingsError("TAXI_DROP is wrong")


def raise_interrupt() -> None:
    """Fail as Dagster does upon a signal."""
    raise dg.DagsterExecutionInterruptedError


def raise_library() -> None:
    """Fail as an asset does at an error that this package does not expect."""
    with name_asset_in_errors(KEY, DAYS):
        {}["bug"]


def raise_own_failure() -> None:
    """Fail as a user's asset may, with the cause that it found."""
    try:
        {}["bug"]
    except KeyError as error:
        raise dg.Failure("no key") from error


def raise_bug_upon_expected() -> None:
    """Fail as a user's asset may that handles an expected error, but wrongly."""
    try:
        raise_settings()
    except SettingsError:
        {}["bug"]


def raise_failure_upon_bug() -> None:
    """Fail with a cause that is itself the consequence of an expected error."""
    try:
        raise_bug_upon_expected()
    except KeyError as error:
        raise dg.Failure("no key") from error


def print_failed_run(folder: Path, fail: Callable[[], None], capsys: pytest.CaptureFixture) -> str:
    """Return the console's text of a run that fails."""

    @dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
    def fails() -> None:
        fail()

    (folder / "dagster.yaml").write_text(json.dumps(SETTINGS))
    capsys.readouterr()
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        result = dg.GraphDefinition(name="fails_job", node_defs=[fails]).execute_in_process(
            instance=instance, raise_on_error=False
        )
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        # The event log, and so the UI, has the stack.
        assert failure.step_failure_data.error.stack
    assert not result.success
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (raise_terminal, "green/raw_trips 2021-01-05: the file is broken"),
        (raise_unavailable, "green/raw_trips 2021-01-05: UnavailableError: start the server"),
        (raise_settings, "TAXI_DROP is wrong"),
    ],
)
def test_expected_error_is_one_line_of_step_and_run(
    fail: Callable[[], None], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = print_failed_run(tmp_path, fail, capsys)
    assert STACK not in text
    step, run = text.splitlines()
    assert step.endswith(f' - STEP_FAILURE - Execution of step "fails" failed. {message}')
    assert " - RUN_FAILURE - " in run
    assert run.endswith(f"Steps failed: ['fails']. {message}")


def test_interrupted_run_prints_no_stack(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Ctrl-C in `dg dev` ends its runs, too."""
    text = print_failed_run(tmp_path, raise_interrupt, capsys)
    assert "STEP_FAILURE" in text
    assert STACK not in text


@pytest.mark.parametrize(
    "fail", [raise_library, raise_own_failure, raise_bug_upon_expected, raise_failure_upon_bug]
)
def test_other_error_keeps_its_stack(
    fail: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = print_failed_run(tmp_path, fail, capsys)
    assert STACK in text
    assert "KeyError: 'bug'" in text
    assert f'File "{__file__}"' in text


def test_first_daemon_of_an_instance_warns_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(json.dumps(SETTINGS))
    (tmp_path / "defs.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-f", "defs.py"]
    log = tmp_path / "log"
    with log.open("w") as target:
        daemon = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
            stdout=target,
            stderr=target,
        )
    try:
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            deadline = time.monotonic() + 60
            cursor = f"EVENT_LOG_CONSUMER_CURSOR-{dg.DagsterEventType.RUN_FAILURE.value}"
            while not instance.daemon_cursor_storage.get_cursor_values({cursor}):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
    finally:
        daemon.terminate()
        daemon.wait()
    text = log.read_text()
    assert "Instance is configured with the following daemons" in text
    assert logging.getLevelName(logging.WARNING) not in text


@pytest.mark.parametrize("mode", [{}, {"DAGSTER_IS_DEV_CLI": "1", "DAGSTER_verbose": ""}])
def test_code_server_prints_a_wrong_setting_in_one_line(
    mode: dict[str, str], tmp_path: Path
) -> None:
    """As in a container, and as in `dg dev`."""
    (tmp_path / "dagster.yaml").write_text(json.dumps(SETTINGS))
    wrong = "from taxi_assets.errors import SettingsError\nraise SettingsError('TAXI_X is wrong')\n"
    (tmp_path / "wrong.py").write_text(wrong)
    options = ("-f", "wrong.py", "--lazy-load-user-code", "--socket", str(tmp_path / "s"))
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("dagster")), "api", "grpc", *options],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)} | mode,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout
    lines = list[str]()
    try:
        while not lines or "Started" not in lines[-1]:
            lines.append(server.stdout.readline())
            assert lines[-1], lines
    finally:
        server.terminate()
        server.communicate()
    assert len([line for line in lines if "TAXI_X is wrong" in line]) == 1
    assert len(lines) == 3
