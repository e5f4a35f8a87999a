"""AWS Signature Version 4 for DynamoDB's JSON protocol, and nothing else.

Every request is a POST to one path with the same five headers at most, so the canonical request is
one template. The signing key changes once a day, the date once a second: both are kept.
"""

from __future__ import annotations

import hmac
import re
import time
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote, urlsplit

from chalk_online_store.errors import InvalidURL

ALGORITHM = "AWS4-HMAC-SHA256"
CONTENT_TYPE = "application/x-amz-json-1.0"
TARGET = "DynamoDB_20120810."
_VISIBLE = re.compile("[!-~]+")
_PATH = re.compile(r"/(?:[A-Za-z0-9_.~/-]|%[0-9A-Fa-f]{2})*(?<!/\.)(?<!/\.\.)")
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """AWS credentials at one moment. The repr hides every field."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    """The session token of temporary credentials."""
    expires_at: float | None = field(default=None, repr=False)
    """Seconds since 1970; None when they do not expire."""


class Signer:
    """Signs requests to one DynamoDB endpoint. Safe to share between threads.

    The rule: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, region: str, url: str) -> None:
        """Sign for `region` (such as `us-east-1`) and the host of `url`.

        Raises `InvalidURL` if the URL has no host, or a port that is not a number, and for
        characters in them, in the path or in the region that would change the request.
        """
        self.host = host_header(url)
        if not _VISIBLE.fullmatch(self.host) or not _VISIBLE.fullmatch(region):
            raise InvalidURL(
                "the endpoint's host, or its region, is empty or holds white space or other "
                "characters that no request can carry"
            )
        self.path = url_path(url)
        self._canonical_path = quote(self.path, safe="/~")
        self._region = region
        # Each is replaced as a whole, so a thread sees a pair that belongs together.
        self._second = (-1, "")
        self._key = ("", "", b"")

    def sign(self, credentials: Credentials, operation: str, body: bytes, now: float) -> str:
        """Give the headers of a POST of `body` to `self.path` at `now`, seconds since 1970.

        They are lines, each with its end. All but `Host` are there; it is signed too, and must
        be sent as `self.host`.
        """
        timestamp = self._timestamp(int(now))
        day = timestamp[:8]
        target = TARGET + operation
        token = credentials.token
        if token:
            token_line, token_name = f"x-amz-security-token:{token}\n", "x-amz-security-token;"
            token_header = f"X-Amz-Security-Token: {token}\r\n"
        else:
            token_line = token_name = token_header = ""
        signed = f"content-type;host;x-amz-date;{token_name}x-amz-target"
        canonical = (
            f"POST\n{self._canonical_path}\n\ncontent-type:{CONTENT_TYPE}\nhost:{self.host}\n"
            f"x-amz-date:{timestamp}\n"
            f"{token_line}x-amz-target:{target}\n\n{signed}\n{sha256(body).hexdigest()}"
        )
        scope = f"{day}/{self._region}/dynamodb/aws4_request"
        digest = sha256(canonical.encode()).hexdigest()
        to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
        signature = _hmac(self._signing_key(credentials.secret_key, day), to_sign).hex()
        return (
            f"Content-Type: {CONTENT_TYPE}\r\nX-Amz-Target: {target}\r\n"
            f"X-Amz-Date: {timestamp}\r\n{token_header}"
            f"Authorization: {ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed}, Signature={signature}\r\n"
        )

    def _timestamp(self, second: int) -> str:
        kept, timestamp = self._second
        if kept != second:
            timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._second = (second, timestamp)
        return timestamp

    def _signing_key(self, secret: str, day: str) -> bytes:
        kept_secret, kept_day, key = self._key
        if kept_day != day or kept_secret != secret:
            key = signing_key(secret, day, self._region)
            self._key = (secret, day, key)
        return key


def signing_key(secret: str, day: str, region: str) -> bytes:
    """Derive the key of one `day` (YYYYMMDD, UTC) from the secret key."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, "dynamodb", "aws4_request"):
        key = _hmac(key, part)
    return key


def url_path(url: str) -> str:
    """Return the path of an endpoint's URL, "/" if it has none.

    AWS signs a path with dots and empty segments removed, and sends it as it is. Such paths are
    refused with `InvalidURL`, and so are characters that would have to be escaped.
    """
    path = urlsplit(url).path or "/"
    if not _PATH.fullmatch(path) or any(part in ("", ".", "..") for part in path.split("/")[1:-1]):
        raise InvalidURL(
            "the endpoint's path has an empty segment, a segment of dots, or characters that have "
            "to be percent-encoded"
        )
    return path


def host_header(url: str) -> str:
    """Give the `Host` that HTTP clients send for `url`.

    In lower case, without a default port and without the dot that may end a domain name. Raises
    `InvalidURL` when the URL has no host, or a port that is none. The message does not repeat
    the URL: it could hold a password.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise InvalidURL(f"the endpoint URL cannot be read: {error}") from None
    if not host:
        raise InvalidURL("the endpoint URL has no host: write https://HOST or http://HOST:PORT")
    if ":" in host:
        host = f"[{host}]"
    return host if port in (None, DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{port}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


_hmac(b"", "")  # OpenSSL loads what this takes once, and a fork meanwhile never could.
