"""TLS as botocore would do it, and sessions that a later connection takes up again."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

from botocore.httpsession import get_cert_path

from chalk_online_store._fork import forks_wait
from chalk_online_store.errors import ConnectionFailed
from chalk_online_store.network.settings import DIRECT, Network


def tls_context(network: Network = DIRECT) -> ssl.SSLContext:
    """Make a context that trusts what botocore would trust.

    The network's CA bundle, else `AWS_CA_BUNDLE`, else `REQUESTS_CA_BUNDLE`, else certifi's, else
    botocore's own. Raises `ConnectionFailed` if a file cannot be read.
    """
    named = network.ca_bundle or os.environ.get("AWS_CA_BUNDLE")
    path = Path(named or os.environ.get("REQUESTS_CA_BUNDLE") or str(get_cert_path(True)))
    what = f"CA bundle {path}"
    try:
        with forks_wait():
            if path.is_dir():
                context = ssl.create_default_context(capath=path)
            else:
                context = ssl.create_default_context(cafile=path)
            if certificate := network.client_certificate:
                what = "client certificate"
                files = (certificate,) if isinstance(certificate, str) else certificate
                context.load_cert_chain(*files)
            return context
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ConnectionFailed(f"the {what} cannot be read: {why}") from None


class TLS:
    """TLS with one host. Each handshake offers the last session, and so can be a short one."""

    def __init__(self, host: str, network: Network = DIRECT) -> None:
        """Verify that the peer is `host`; raises as `tls_context`."""
        self.host = host
        self.context = tls_context(network)
        """For asyncio, whose connections offer the session too."""
        self.session: ssl.SSLSession | None = None
        self.context.sslobject_class = _resuming(self)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Make TLS of a connected socket; the handshake is still to be done."""
        return self.context.wrap_socket(
            sock,
            do_handshake_on_connect=False,
            server_hostname=self.host,
            session=self.session,
        )

    def keep_session(self, secured: ssl.SSLSocket | ssl.SSLObject) -> None:
        """Remember a connection's session: call it after an answer, which brought the ticket."""
        self.session = secured.session


def _resuming(tls: TLS) -> type[ssl.SSLObject]:
    """The class of asyncio's TLS connections: asyncio itself has no way to hand in a session."""

    class Resuming(ssl.SSLObject):
        begun = False

        def do_handshake(self) -> None:
            if not self.begun and tls.session is not None:
                self.session = tls.session
            self.begun = True
            super().do_handshake()

    return Resuming
