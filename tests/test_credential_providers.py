"""Credentials of botocore's providers, each against a fake service, on any supported botocore.

These tests need only boto3, so they also run on the oldest and the newest botocore. aioboto3 is
tested as well if it accepts the installed botocore.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import botocore
import pytest
from packaging.requirements import Requirement

from chalk_online_store.dynamodb.credentials import PAUSE, CredentialSource
from chalk_online_store.dynamodb.sessions import resolve_regions, session_of
from chalk_online_store.dynamodb.signing import Credentials
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import InvalidCredentials, RequestTimeout
from chalk_online_store.urls import parse_url

HOUR = 3600
SESSIONS: list[type[Any]] = [boto3.Session]
with suppress(ImportError):
    import aioboto3

    wanted = map(Requirement, metadata.requires("aiobotocore") or ())
    if all(each.name != "botocore" or botocore.__version__ in each.specifier for each in wanted):
        SESSIONS.append(aioboto3.Session)


class Issuer(ThreadingHTTPServer):
    """STS, IMDS, the endpoint of containers and SSO: each answer has the next access key."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.issued = 0
        self.asked: list[str] = []

    def expiry(self) -> float:
        return float(int(time.time()) + HOUR)


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        self._send("metadata-token")

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/iam/security-credentials/":
            self._send("role")
        elif self.path.startswith("/federation/credentials"):
            keys = self._issue()
            self._send_json(
                {
                    "roleCredentials": {
                        "accessKeyId": keys["AccessKeyId"],
                        "secretAccessKey": "secret",
                        "sessionToken": keys["Token"],
                        "expiration": int(self.server.expiry() * 1000),
                    }
                }
            )
        elif "Authorization" not in self.headers and self.path == "/v1/credentials":
            self.send_error(401)
        else:
            self._send_json({"Code": "Success", **self._issue()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        action = "AssumeRoleWithWebIdentity" if "WebIdentity" in body else "AssumeRole"
        keys = self._issue()
        self._send(
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>'
            f"<Credentials><AccessKeyId>{keys['AccessKeyId']}</AccessKeyId>"
            f"<SecretAccessKey>secret</SecretAccessKey><SessionToken>{keys['Token']}</SessionToken>"
            f"<Expiration>{keys['Expiration']}</Expiration></Credentials><AssumedRoleUser>"
            "<Arn>arn:aws:sts::123456789012:assumed-role/role/name</Arn>"
            "<AssumedRoleId>A:name</AssumedRoleId></AssumedRoleUser>"
            f"</{action}Result></{action}Response>",
            "text/xml",
        )

    def _issue(self) -> dict[str, str]:
        self.server.issued += 1
        moment = datetime.fromtimestamp(self.server.expiry(), UTC)
        return {
            "AccessKeyId": f"AKID{self.server.issued}",
            "SecretAccessKey": "secret",
            "Token": f"token{self.server.issued}",
            "Expiration": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _send_json(self, answer: dict[str, Any]) -> None:
        self._send(json.dumps(answer), "application/json")

    def _send(self, text: str, kind: str = "text/plain") -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return monkeypatch


def assume_role(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    (home / "credentials").write_text(
        "[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = s\n"
    )
    (home / "config").write_text(
        "[default]\nrole_arn = arn:aws:iam::123456789012:role/role\nsource_profile = base\n"
    )


def web_identity(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    (home / "jwt").write_text("header.payload.signature")
    environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "jwt"))
    environment.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/role")


def container(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/v2/credentials")


def pod_identity(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/v1/credentials")
    (home / "token").write_text("pod-token")
    environment.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(home / "token"))


def instance_metadata(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.delenv("AWS_EC2_METADATA_DISABLED")
    environment.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", issuer.url)


def sso(issuer: Issuer, environment: pytest.MonkeyPatch, home: Path) -> None:
    environment.setenv("AWS_ENDPOINT_URL_SSO", issuer.url)
    (home / "config").write_text(
        "[default]\nsso_start_url = https://d-1.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = role\n"
    )
    # botocore computes the path of this cache when it is imported.
    environment.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(home))
    name = hashlib.sha1(b"https://d-1.awsapps.com/start").hexdigest()
    token = {"accessToken": "t", "expiresAt": "2099-01-01T00:00:00Z", "region": "us-east-1"}
    (home / f"{name}.json").write_text(json.dumps(token))


PROVIDERS = [assume_role, web_identity, container, pod_identity, instance_metadata, sso]


class Clock:
    """The time, moved forward by the test."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("provide", PROVIDERS)
def test_each_provider_issues_credentials_that_expire(
    session: Callable[[], Any],
    provide: Callable[..., None],
    issuer: Issuer,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A provider's temporary keys and their expiry arrive by the public API of botocore."""
    provide(issuer, environment, tmp_path)
    source = CredentialSource(session())
    for found in (source.current(), asyncio.run(source.current_async())):
        assert (found.access_key, found.token) == ("AKID1", "token1")
        assert found.expires_at is not None
        assert abs(found.expires_at - time.time() - HOUR) < 60
    assert issuer.issued == 1


@pytest.mark.parametrize("provide", PROVIDERS)
def test_a_store_of_its_own_session_renews_what_botocore_believes_to_be_valid(
    provide: Callable[..., None],
    issuer: Issuer,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A session is opened again after `CredentialsExpired`: botocore keeps roles for an hour."""
    provide(issuer, environment, tmp_path)
    clock = Clock()
    source = CredentialSource(session_of(None), clock, reopen=lambda: session_of(None))
    assert source.current().token == "token1"
    clock.ahead = PAUSE
    assert source.refresh().token == "token2"


@pytest.mark.parametrize("provide", [container, pod_identity, instance_metadata])
def test_a_session_of_the_caller_is_renewed_too(
    provide: Callable[..., None],
    issuer: Issuer,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The part of botocore that is not public still has the form that a renewal needs."""
    provide(issuer, environment, tmp_path)
    clock = Clock()
    source = CredentialSource(boto3.Session(), clock)
    assert source.current().token == "token1"
    clock.ahead = PAUSE
    assert source.refresh().token == "token2"


def test_without_the_private_part_botocore_decides(
    issuer: Issuer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a change of private names in botocore, credentials are still loaded."""
    from botocore.credentials import RefreshableCredentials

    container(issuer, environment, tmp_path)
    renew: Any = RefreshableCredentials._protected_refresh  # type: ignore[attr-defined]

    def renamed(self: Any, is_mandatory: bool, budget: int) -> None:
        renew(self, is_mandatory=is_mandatory)

    session = boto3.Session()
    clock = Clock()
    source = CredentialSource(session, clock)
    assert source.current().token == "token1"
    environment.setattr(RefreshableCredentials, "_protected_refresh", renamed)
    clock.ahead = PAUSE
    assert source.refresh().token == "token1"


def test_a_file_of_credentials_that_was_rotated_is_read_again(tmp_path: Path) -> None:
    """Keys of a shared file have no expiry: after `CredentialsExpired` the file is read again."""
    text = "[default]\naws_access_key_id = {0}\naws_secret_access_key = s\naws_session_token = t\n"
    (tmp_path / "credentials").write_text(text.format("AKIDOLD"))
    target = parse_url("dynamodb:///features")
    assert isinstance(target, DynamoDBTarget)
    clock = Clock()
    (access,) = resolve_regions(target)
    source = access.credentials
    source._clock = clock
    assert source.current() == Credentials("AKIDOLD", "s", "t")
    (tmp_path / "credentials").write_text(text.format("AKIDNEW"))
    clock.ahead = PAUSE
    assert source.refresh().access_key == "AKIDNEW"


def test_an_sso_session_that_has_ended_names_the_remedy(
    issuer: Issuer, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a token of SSO, the error says to log in."""
    sso(issuer, environment, tmp_path)
    for cached in tmp_path.glob("*.json"):
        cached.unlink()
    with pytest.raises(InvalidCredentials, match=r"SSOTokenLoadError.*aws sso login"):
        CredentialSource(boto3.Session()).current()


# --- how a load can end --------------------------------------------------------------------


class Raising:
    """A session whose provider raises something."""

    region_name = None
    client = boto3.client

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def get_credentials(self) -> Any:
        raise self.error


class RaisingAsync(Raising):
    async def get_credentials(self) -> Any:
        raise self.error


ERRORS = [ValueError("hush"), MemoryError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [Raising, RaisingAsync])
def test_a_load_that_ends_with_any_exception_leaves_nobody_waiting(
    kind: type[Raising], error: BaseException
) -> None:
    """Threads and tasks without a timeout get `InvalidCredentials` with the error's class."""
    source = CredentialSource(kind(error))
    found: list[str] = []

    def wait() -> None:
        with pytest.raises(InvalidCredentials) as raised:
            source.current()
        found.append(str(raised.value))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(30)
    assert len(found) == 1
    assert found[0].endswith(f": {type(error).__name__}")


@pytest.mark.parametrize("error", [ValueError("hush"), MemoryError()], ids=["error", "memory"])
@pytest.mark.parametrize("kind", [Raising, RaisingAsync])
def test_a_task_gets_the_exception_of_its_own_loop_too(
    kind: type[Raising], error: BaseException
) -> None:
    """A coroutine of a provider runs on the caller's event loop, and its failure is reported."""
    with pytest.raises(InvalidCredentials, match=type(error).__name__):
        asyncio.run(CredentialSource(kind(error)).current_async())


def test_a_thread_that_cannot_start_is_an_error_with_a_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a thread there are no credentials; the next call tries again."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source = CredentialSource(boto3.Session("AKID", "secret"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(InvalidCredentials, match="RuntimeError"):
            source.current()
    assert source.current().access_key == "AKID"


class Hanging:
    """A session whose provider waits on the caller's event loop for good."""

    region_name = None
    client = boto3.client

    async def get_credentials(self) -> Any:
        await asyncio.Event().wait()


def test_an_event_loop_that_ends_ends_its_load() -> None:
    """A load whose event loop stopped is over, so that the next event loop can start one."""
    source = CredentialSource(Hanging())

    async def give_up() -> None:
        with pytest.raises(RequestTimeout):
            await source.current_async(timeout=0.01)

    asyncio.run(give_up())
    settle()
    source._session = boto3.Session("AKID", "secret")
    assert asyncio.run(source.current_async(timeout=30)).access_key == "AKID"


def settle() -> None:
    for thread in threading.enumerate():
        if thread.name == "chalk-online-store-credentials":
            thread.join(30)
            assert not thread.is_alive()
