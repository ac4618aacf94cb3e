"""Every command of the README, as printed: blocks pasted as a whole, no environment activated."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.isolation import isolation
from taxi_assets_tests.test_quickstart import checkout

__all__ = ["checkout"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MIRROR = "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/{service}/"


class Block(NamedTuple):
    """What a person pastes, and what the README says that it prints."""

    language: str
    text: str
    printed: str | None


def blocks(section: str) -> Iterator[Block]:
    """The blocks of a section, each with the output that follows it."""
    readme = (REPOSITORY / "README.md").read_text()
    text = readme.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    fences = FENCE.findall(text)
    for at, (language, content) in enumerate(fences):
        following = fences[at + 1] if at + 1 < len(fences) else ("", "")
        if language != "text":
            yield Block(language, content, following[1] if following[0] == "text" else None)


def paste(folder: Path, script: str) -> str:
    """What a shell of a person prints who pastes some lines in the checkout."""
    inherited = {name: it for name, it in isolation.pristine.items() if name != "TAXI_ENV_FILE"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=inherited | {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(block: Block) -> str:
    """The shell's lines that run a block of Python."""
    return f".venv/bin/python - <<'END'\n{block.text}END\n"


def test_a_newcomer_gets_what_the_page_says(checkout: Path) -> None:
    (checkout / ".venv").symlink_to(sys.prefix)
    (start,) = blocks("Quick start")
    # The environment of the tests is the one that the first two commands would make.
    command = start.text.rsplit("&& ", 1)[1]
    printed = paste(checkout, command)
    assert printed.replace(str(checkout), "<checkout>") == start.printed

    sql, pandas, google = blocks("Look at the data")
    assert paste(checkout, sql.text) == f"{sql.printed}\n"
    assert paste(checkout, python(pandas)) == pandas.printed
    up, env = (
        ".venv/bin/taxi-assets local up >/dev/null",
        'eval "$(.venv/bin/taxi-assets local env)"',
    )
    assert env in (REPOSITORY / "README.md").read_text()
    assert paste(checkout, f"{up}\n{env}\n{python(google)}") == google.printed

    loads, leaves = blocks("Commands")
    said = paste(checkout, loads.text)
    assert "31 days loaded, 0 left" in said
    assert "exports/yellow_2021-01-05_2021-01-05.parquet" in said

    (real,) = blocks("Load real data")
    assert MIRROR in real.text
    write_sample_month(
        SERVICES["green"], Month(2021, 1), checkout / "green_tripdata_2021-01.csv.gz"
    )
    assert "31 days loaded, 0 left" in paste(checkout, real.text.replace(MIRROR, f"{checkout}/"))

    paste(checkout, leaves.text)
    assert not {".taxi", "history", ".env"} & {path.name for path in checkout.iterdir()}
