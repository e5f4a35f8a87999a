"""The proxy and the certificates that botocore would use for a connection.

| setting | from, the first that is set |
|---|---|
| proxy | `Config(proxies=...)` of the session; `HTTPS_PROXY` for an endpoint with https:// and `HTTP_PROXY` for http://, if `NO_PROXY` does not name the host |
| authorities | `AWS_CA_BUNDLE`; `ca_bundle` of the profile; `REQUESTS_CA_BUNDLE`; certifi; botocore |
| client certificate | `Config(client_cert=...)` of the session |

As in botocore, `NO_PROXY` does not concern `Config(proxies=...)`, names in it match as the standard
library matches them, and this machine is not exempt: with `HTTP_PROXY` set, requests to an engine on
http://localhost:8000 go to the proxy unless `NO_PROXY` has "localhost".
"""  # noqa: E501 - a table

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from chalk_online_store.errors import InvalidNetworkSettings

ClientCertificate = str | tuple[str, str]
"""A file with certificate and key, or a file for each."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    """The value of `Proxy-Authorization`; empty if the proxy's URL has no user and password."""

    @property
    def name(self) -> str:
        """Host and port, for messages."""
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Network:
    """The proxy and the certificates on the way to one endpoint."""

    proxy: Proxy | None = None
    ca_bundle: str | None = None
    """A file or directory of authorities to trust; None for the default ones."""
    client_certificate: ClientCertificate | None = None


DIRECT = Network()
"""No proxy, and the default authorities."""


def resolve_network(session: Any, url: str) -> Network:
    """Return the network settings of a boto3 or an aioboto3 session for an endpoint.

    Raises `InvalidNetworkSettings`.
    """
    # boto3 shows neither its default `Config` nor the profile's settings. `_session` is a session
    # of botocore's, and the two methods that are called are public there.
    core = getattr(session, "_session", None)
    config = core and core.get_default_client_config()
    text = proxy_for(url, config and config.proxies)
    bundle = core.get_config_variable("ca_bundle") if core else os.environ.get("AWS_CA_BUNDLE")
    if bundle is None:
        bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle is not None and not bundle.strip():
        raise InvalidNetworkSettings(
            "The CA bundle is an empty path. Unset AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or ca_bundle "
            "of the profile, or set it to a file."
        )
    if text and config and config.proxies_config:
        raise InvalidNetworkSettings(
            "Config(proxies_config=...) is not supported, since it is for TLS to the proxy itself. "
            "Remove it, and use a proxy with http://."
        )
    certificate = config.client_cert if config else None
    return Network(parse_proxy(text) if text else None, bundle, certificate)


def proxy_for(url: str, configured: Mapping[str, str] | None) -> str | None:
    """Return the proxy for a URL, as it is written; None to connect directly.

    `configured` is `Config.proxies`, which replaces the environment if it is not None.
    """
    parts = urlsplit(url)
    if configured is not None:
        return configured.get(parts.scheme)
    try:
        if proxy_bypass(parts.netloc):
            return None
    except (TypeError, socket.gaierror):  # As in botocore: macOS looks up the host's name.
        pass
    return getproxies().get(parts.scheme)


def parse_proxy(text: str) -> Proxy:
    """Read a proxy's URL. Raises `InvalidNetworkSettings`, without a user or a password."""
    if text.startswith("//"):
        text = f"http:{text}"
    elif "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        basic = b64encode(f"{user}:{password}".encode("ascii")).decode()
    except ValueError:  # UnicodeEncodeError is one.
        raise InvalidNetworkSettings(
            "The proxy's URL cannot be read. Write http://HOST:PORT or "
            "http://USER:PASSWORD@HOST:PORT, in ASCII, with special characters percent-encoded."
        ) from None
    if parts.scheme != "http":
        raise InvalidNetworkSettings(
            f"The proxy's URL begins with {parts.scheme}://, which is not supported. Use a proxy "
            "with http://: it passes on the TLS connection to AWS and cannot read it."
        )
    if not host or not host.isascii() or any(map(str.isspace, host)):
        raise InvalidNetworkSettings("The proxy's URL has no valid host. Write http://HOST:PORT.")
    return Proxy(host, port or 80, f"Basic {basic}" if user and password else "")


def is_local_host(host: str | None) -> bool:
    """Return True for a name of this machine."""
    return host in ("127.0.0.1", "localhost", "::1")


def bracketed(host: str) -> str:
    """Return a host as it is written before a port."""
    return f"[{host}]" if ":" in host else host
