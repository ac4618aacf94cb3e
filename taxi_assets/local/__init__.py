"""The embedded stack of profile `local`: Postgres, the BigQuery emulator and a lake folder.

Code that starts, supervises and stops these servers belongs here; code that uses them does not.
`ensure_stack_running(home)` starts missing servers and returns their addresses, and a supervisor
process stops idle ones; `python -m taxi_assets.local up` keeps them up. Importing this package
starts nothing and imports no server, client or Arrow.
"""

from __future__ import annotations

from taxi_assets.local.stack import ensure_stack_running
from taxi_assets.local.state_directory import LocalStackError, Stack

__all__ = ["LocalStackError", "Stack", "ensure_stack_running"]
