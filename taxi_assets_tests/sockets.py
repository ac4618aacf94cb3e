"""Relays of connections to a server, and Cloud SQL's sockets on top of one."""

from __future__ import annotations

import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until the source ends."""
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


def relay(client: socket.socket, address: tuple[str, int]) -> None:
    """Relay a connection to a server in both directions until both ends close."""
    with socket.create_connection(address) as server:
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread."""
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def socket_folder(host: str, port: int) -> Iterator[Path]:
    """Create Cloud SQL's socket of a Postgres server, in a folder named like its instance."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            relay(self.request, (host, port))

    # Not pytest's folder: a socket's path is limited to about a hundred characters.
    root = Path(tempfile.mkdtemp(prefix="sql-"))
    folder = root / "taxi-local:us-central1:taxi-postgres"
    folder.mkdir()
    try:
        address = str(folder / ".s.PGSQL.5432")
        with serving(_UnixServer(address, Handler)):
            yield folder
    finally:
        shutil.rmtree(root)


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
