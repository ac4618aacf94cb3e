"""The command itself is installed and importable, and every error is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from taxi_assets.cli.app import main
from taxi_assets.cli.entry import main as run_module
from taxi_assets.defs.alerts import targets
from taxi_assets_tests.cli.conftest import run_command
from taxi_assets_tests.defs.automation.receivers import find_free_port, http_receiver
from taxi_assets_tests.fake_http_server import Site


def test_command_is_installed_and_is_the_module() -> None:
    installed = Path(sys.executable).with_name("taxi-assets")
    help_text = subprocess.run([installed, "--help"], capture_output=True, text=True, check=True)
    for command in ("plan", "backfill", "status", "quickstart", "local"):
        assert f" {command} " in help_text.stdout
    assert "Usage" in run_command("--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "red", "2021-01"), "there is no service 'red'"),
        (("plan", "yellow", "january"), "'january' is not a month, day or range"),
        (("plan", "yellow"), "Missing argument 'span'"),
        (("backfill", "yellow", "2021-01", "--only", "loaded"), "choose from missing, rejected"),
        (("backfill", "yellow", "2021-01", "--max-runs", "0"), "greater than or equal to 1"),
        (("query", "SELECT 1", "--store", "Postgres"), "not one of 'postgres', 'bigquery'"),
        (("fly",), "No such command 'fly'"),
        (("plan", "yellow", "2021-01"), "DAGSTER_HOME is not set"),
        (("status",), "DAGSTER_HOME is not set"),
    ],
)
def test_error_is_one_line(
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert main(list(arguments)) == 2
    printed = capfd.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_invalid_settings_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("TAXI_PROFILE", "cloud")
    assert main(["plan", "yellow", "2021-01"]) == 2
    output = capfd.readouterr().err
    assert "TAXI_PROFILE" in output
    assert output.count("\n") == 1


def test_embedded_stack_is_a_subcommand(home: Path) -> None:
    assert "postgresql://127.0.0.1:" in run_command("local", "status")
    assert '"state": "running"' in run_command("local", "status", "--json")


def test_alert_test_names_unreached_targets(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["alert-test"]) == 2
    assert "set TAXI_ALERT_URLS or TAXI_HEARTBEAT_URL" in capfd.readouterr().err
    monkeypatch.setattr(targets, "RETRY_SECONDS", 0.01)
    with http_receiver() as receiver:
        unreachable = f"json://127.0.0.1:{find_free_port()}/planted-secret"
        monkeypatch.setenv("TAXI_ALERT_URLS", f"{receiver.apprise} {unreachable}")
        assert main(["alert-test"]) == 1
        (body,) = receiver.bodies
    assert body["title"] == "taxi-assets: a test alert"
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "json (1): accepted the message"
    assert lines[1].startswith("json (2): A Connection")
    assert lines[2].startswith("heartbeat: not set (TAXI_HEARTBEAT_URL)")
    assert "planted-secret" not in "".join(lines)
    monkeypatch.delenv("TAXI_ALERT_URLS")
    monkeypatch.setenv("TAXI_HEARTBEAT_URL", f"{site.address}/ping")
    assert main(["alert-test"]) == 0
    assert capfd.readouterr().out == "heartbeat: HTTP 200\n"


class InterruptedImport(MetaPathFinder):
    """Receives Ctrl-C while the command imports its code, which takes seconds."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "taxi_assets.cli.app":
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_during_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "taxi_assets.cli.app")
    monkeypatch.setattr(sys, "meta_path", [InterruptedImport(), *sys.meta_path])
    assert run_module(["status"]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_folder_of_another_user_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    # Root writes anywhere unless it gives up this right.
    like_others = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    completed = subprocess.run(
        [*like_others, sys.executable, "-m", "taxi_assets", "status"],
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    last = completed.stderr.splitlines()[-1]
    assert last.startswith(f"{tmp_path}/")
    assert last.endswith(
        ": Permission denied: set DAGSTER_HOME and TAXI_HOME to folders of your own"
    )
