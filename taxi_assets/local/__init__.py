"""The embedded stack of profile `local`: Postgres, the BigQuery emulator and a lake folder.

`ensure_stack_running(home)` starts what is missing and says where it is. A supervisor process owns
the servers and stops them once they are idle; `python -m taxi_assets.local up` keeps them up.
Importing this package starts nothing and imports no server, client or Arrow.
"""

from __future__ import annotations

from taxi_assets.local.stack import ensure_stack_running
from taxi_assets.local.state_directory import LocalStackError, Stack

__all__ = ["LocalStackError", "Stack", "ensure_stack_running"]
