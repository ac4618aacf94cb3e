"""Google's address on this machine: clients with nothing changed in them reach a local server.

Google's gRPC clients speak TLS to `run.googleapis.com:443`. gRPC's own variables name a proxy and
the authorities to trust, Google's names a key file; a key signs its tokens itself, with no call.
"""

from __future__ import annotations

import json
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme

from taxi_assets_tests.sockets import relay, serving

HOST = "run.googleapis.com"


@dataclass
class Identity:
    """A certificate of `HOST`, who vouches for it, and a service account with its key."""

    key: bytes
    certificate: bytes
    roots: bytes

    @classmethod
    def new(cls) -> Identity:
        """One of its own."""
        authority = trustme.CA()
        leaf = authority.issue_cert(HOST, key_type=trustme.KeyType.RSA)
        certificate = leaf.cert_chain_pems[0].bytes()
        return cls(leaf.private_key_pem.bytes(), certificate, authority.cert_pem.bytes())

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a server for `HOST`."""
        return grpc.ssl_server_credentials([(self.key, self.certificate)])

    def env(self, folder: Path, proxy: int) -> dict[str, str]:
        """Return variables that make Google's clients trust it, sign with it and use the proxy."""
        roots, account = folder / "roots.pem", folder / "account.json"
        roots.write_bytes(self.roots)
        account.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "taxi-local",
                    "client_email": "daemon@taxi-local.iam.gserviceaccount.com",
                    "private_key": self.key.decode(),
                    "token_uri": "https://oauth2.googleapis.com/token",
                }
            )
        )
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
            "grpc_proxy": f"http://127.0.0.1:{proxy}",
            "no_grpc_proxy": "localhost,127.0.0.1",
        }


@contextmanager
def proxy(target: int) -> Iterator[int]:
    """Run a proxy that connects `HOST` to a local port and rejects other hosts; yield its port."""

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            wanted = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            if wanted != f"{HOST}:443":
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            relay(self.connection, ("127.0.0.1", target))

    server = _TcpServer(("127.0.0.1", 0), Tunnel)
    with serving(server):
        yield server.server_address[1]


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
