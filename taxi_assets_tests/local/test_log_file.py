"""The output of docker-compose's services goes to a file without changing their behaviour."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_assets.local.log_file import FILES, MAX_BYTES
from taxi_assets_tests.test_server import until

LOG_FILE = [sys.executable, "-m", "taxi_assets.local.log_file"]


def start_logged(file: Path, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*LOG_FILE, str(file), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=restore_signals,  # noqa: PLW1509 - only signals
    )


def restore_signals() -> None:
    """Restore signals that the suite was started to ignore: a shell cannot trap them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def test_output_is_logged_and_passed_on_with_the_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "services" / "x.log"
    script = r"printf 'one\n'; printf 'two \377\n' >&2; printf 'no newline'; exit 7"
    for _ in range(2):
        with start_logged(file, "sh", "-c", script) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (7, b"one\ntwo \xff\nno newline", b"")
    expected = "one\ntwo \N{REPLACEMENT CHARACTER}\nno newline"
    assert file.read_text() == expected * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_reaches_the_command_and_its_last_output_is_logged(
    tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "x.log"
    script = f"trap 'echo last; exit 3' {number.value}; echo ready; while :; do sleep 0.1; done"
    with start_logged(file, "sh", "-c", script) as process:
        until(lambda: file.exists() and "ready" in file.read_text(), 60, 0.05)
        process.send_signal(number)
        assert process.wait(60) == 3
    assert file.read_text() == "ready\nlast\n"


def test_killed_command_has_the_exit_code_of_a_shell(tmp_path: Path) -> None:
    with start_logged(tmp_path / "x.log", "sh", "-c", "kill -9 $$") as process:
        assert process.wait(60) == 128 + signal.SIGKILL


def test_process_that_holds_the_pipe_does_not_delay_the_end(tmp_path: Path) -> None:
    with start_logged(tmp_path / "x.log", "sh", "-c", "sleep 300 & echo $!") as process:
        assert process.wait(120) == 0
    (process_id,) = (tmp_path / "x.log").read_text().split()
    subprocess.run(["kill", process_id], check=True)


def test_log_files_have_a_limit(tmp_path: Path) -> None:
    script = f"yes {'x' * 1023} | head -c {(FILES + 1) * MAX_BYTES}"
    with start_logged(tmp_path / "x.log", "sh", "-c", script) as process:
        process.communicate(timeout=120)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1", "x.log.2"]
    assert all(file.stat().st_size <= MAX_BYTES for file in files)
