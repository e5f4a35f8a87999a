"""Credentials are renewed ahead, once, without making anybody wait; endpoints are botocore's."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aioboto3
import boto3
import pytest
from aiobotocore.credentials import (  # type: ignore[import-untyped]
    AioRefreshableCredentials,
)
from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from chalk_online_store import _fork as forks
from chalk_online_store.dynamodb.credentials import (
    PAUSE,
    REFRESH_AHEAD,
    CredentialSource,
    Endpoint,
    resolve_endpoint,
)
from chalk_online_store.dynamodb.signing import Credentials
from chalk_online_store.errors import InvalidCredentials, InvalidURL, RequestTimeout

HOUR = 3600.0


class Clock:
    """Seconds since 1970 that pass when the test says so, for us and for botocore."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Tell the time as `time.time` does."""
        return self.now

    def local(self) -> datetime:
        """Tell the time as botocore wants it told."""
        return datetime.fromtimestamp(self.now, UTC)


class Role:
    """Temporary credentials of botocore's own kind, issued by a service that obeys the test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lifetime = HOUR
        self.asked = 0
        self.issued = 0
        self.failing = False
        self.open = threading.Event()
        self.open.set()

    def issue(self) -> dict[str, Any]:
        """Issue credentials once the service is open, unless it is failing."""
        self.asked += 1
        assert self.open.wait(60)
        if self.failing:
            raise CredentialRetrievalError(provider="test", error_msg="the service is away")
        self.issued += 1
        expiry = datetime.fromtimestamp(self.clock.now + self.lifetime, UTC)
        return {
            "access_key": f"AKID{self.issued}",
            "secret_key": "secret",
            "token": f"token{self.issued}",
            "expiry_time": expiry.isoformat(),
        }

    async def issue_async(self) -> dict[str, Any]:
        """As `issue`, without blocking."""
        return await asyncio.to_thread(self.issue)


class Session:
    """As much of a `boto3.Session` as credentials are taken from."""

    region_name = None
    client = boto3.client

    def __init__(self, role: Role) -> None:
        self._found = DeferredRefreshableCredentials(role.issue, "test", role.clock.local)

    def get_credentials(self) -> RefreshableCredentials:
        """Find the role's credentials, not issued yet."""
        return self._found


class AsyncSession:
    """As much of an `aioboto3.Session`."""

    region_name = None
    client = boto3.client

    def __init__(self, role: Role) -> None:
        self._role = role
        self._found: AioRefreshableCredentials | None = None

    async def get_credentials(self) -> AioRefreshableCredentials:
        """Find the role's credentials, issued on the first call."""
        if self._found is None:
            first = await self._role.issue_async()
            self._found = AioRefreshableCredentials(
                first["access_key"],
                first["secret_key"],
                first["token"],
                datetime.fromisoformat(first["expiry_time"]),
                self._role.issue_async,
                "test",
                self._role.clock.local,
            )
        return self._found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def role(clock: Clock) -> Role:
    return Role(clock)


@pytest.fixture
def source(role: Role, clock: Clock) -> CredentialSource:
    return CredentialSource(Session(role), clock)


@pytest.fixture(params=[Session, AsyncSession], ids=["boto3", "aioboto3"])
def async_source(request: Any, role: Role, clock: Clock) -> CredentialSource:
    return CredentialSource(request.param(role), clock)


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("AWS_") or name == "REQUESTS_CA_BUNDLE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


# --- in threads ----------------------------------------------------------------------------


def test_credentials_are_asked_for_once(source: CredentialSource, role: Role) -> None:
    """Many threads that start together share the first attempt, and later ones its result."""
    assert set(in_threads(lambda: source.current().token)) == {"token1"}
    assert source.current().token == "token1"
    assert role.issued == 1


def test_the_expiry_is_botocores(source: CredentialSource, clock: Clock) -> None:
    """Temporary credentials carry the moment at which botocore says they expire."""
    assert source.current() == Credentials("AKID1", "secret", "token1", clock.now + HOUR)


def test_nothing_is_renewed_early(source: CredentialSource, role: Role, clock: Clock) -> None:
    """Until some minutes before their expiry, credentials are only read."""
    source.current()
    clock.now += HOUR - REFRESH_AHEAD - 1
    assert source.current().token == "token1"
    settle()
    assert role.asked == 1


def test_renewal_happens_in_the_background_and_once(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """While the service takes its time, all threads go on with the old credentials."""
    source.current()
    clock.now += HOUR - REFRESH_AHEAD + 1
    role.open.clear()
    assert set(in_threads(lambda: source.current().token)) == {"token1"}
    role.open.set()
    settle()
    assert source.current().token == "token2"
    assert role.asked == 2


def test_expired_credentials_are_never_given(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """Once they have expired, every thread waits for the same new ones."""
    source.current()
    clock.now += HOUR
    assert set(in_threads(lambda: source.current().token)) == {"token2"}
    assert role.issued == 2


def test_waiting_has_an_end(source: CredentialSource, role: Role) -> None:
    """A service that hangs costs a caller its timeout; the attempt goes on for the next one."""
    role.open.clear()
    with pytest.raises(RequestTimeout, match="credentials"):
        source.current(timeout=0.01)
    role.open.set()
    assert source.current(timeout=10).token == "token1"
    assert role.issued == 1


def test_a_failed_renewal_is_not_noticed_before_the_expiry(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """The old credentials serve on, and the service is asked every few seconds, not every time."""
    source.current()
    role.failing = True
    clock.now += HOUR - REFRESH_AHEAD + 1
    for _ in range(3):
        assert source.current().token == "token1"
        settle()
    assert role.asked == 2
    role.failing = False
    clock.now += PAUSE
    source.current()
    settle()
    assert source.current().token == "token2"


def test_a_failed_renewal_is_an_error_after_the_expiry(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """Without good credentials the cause is told, and the next call tries again."""
    source.current()
    role.failing = True
    clock.now += HOUR
    with pytest.raises(InvalidCredentials, match="CredentialRetrievalError"):
        source.current()
    role.failing = False
    assert source.current().token == "token2"


def test_short_lived_credentials_do_not_start_a_storm(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """Credentials that are due from their first moment are renewed every few seconds at most."""
    role.lifetime = REFRESH_AHEAD / 2
    source.current()
    asked = role.asked
    source.current()
    settle()
    assert role.asked == asked
    clock.now += PAUSE
    source.current()
    settle()
    assert role.asked > asked


def test_a_refresh_does_not_ask_for_the_expiry(
    source: CredentialSource, role: Role, clock: Clock
) -> None:
    """When the engine says that a token expired, a new one is made, whatever botocore believes."""
    source.current()
    clock.now += HOUR / 2
    assert source.refresh().token == "token2"
    assert source.current().token == "token2"


def test_many_refreshes_are_one(source: CredentialSource, role: Role, clock: Clock) -> None:
    """A token that expires fails many requests at once; they share one renewal."""
    source.current()
    clock.now += HOUR / 2
    assert set(in_threads(lambda: source.refresh().token)) == {"token2"}
    clock.now += PAUSE / 2
    assert source.refresh().token == "token2"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_wait_for_its_parents_thread(
    source: CredentialSource, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process forked while credentials were being loaded, for long, loads its own."""
    monkeypatch.setattr(forks, "FORK_TIMEOUT_SECONDS", 0.01)
    role.open.clear()
    with pytest.raises(RequestTimeout):
        source.current(timeout=0.01)
    child = os.fork()
    if child == 0:
        role.open.set()
        source._session = Session(role)  # botocore's own lock has the parent's thread inside.
        os._exit(0 if source.current(timeout=10).token == "token1" else 1)
    role.open.set()
    assert os.waitpid(child, 0)[1] == 0


# --- in tasks ------------------------------------------------------------------------------


def test_tasks_ask_for_credentials_once(async_source: CredentialSource, role: Role) -> None:
    """Many tasks that start together share the first attempt."""

    async def scenario() -> None:
        found = await asyncio.gather(*(async_source.current_async() for _ in range(50)))
        assert {credentials.token for credentials in found} == {"token1"}
        assert found[0].expires_at == role.clock.now + HOUR

    asyncio.run(scenario())
    assert role.issued == 1


def test_tasks_do_not_wait_for_a_renewal(
    async_source: CredentialSource, role: Role, clock: Clock
) -> None:
    """While the service takes its time, all tasks go on with the old credentials."""

    async def scenario() -> None:
        await async_source.current_async()
        clock.now += HOUR - REFRESH_AHEAD + 1
        role.open.clear()
        found = await asyncio.gather(*(async_source.current_async() for _ in range(50)))
        assert {credentials.token for credentials in found} == {"token1"}
        role.open.set()
        await asyncio.to_thread(settle)
        assert (await async_source.current_async()).token == "token2"

    asyncio.run(scenario())
    assert role.issued == 2


def test_tasks_never_get_expired_credentials(
    async_source: CredentialSource, role: Role, clock: Clock
) -> None:
    """Once they have expired, every task waits for the same new ones."""

    async def scenario() -> None:
        await async_source.current_async()
        clock.now += HOUR
        found = await asyncio.gather(*(async_source.current_async() for _ in range(50)))
        assert {credentials.token for credentials in found} == {"token2"}

    asyncio.run(scenario())
    assert role.issued == 2


def test_a_task_that_gives_up_leaves_the_attempt_to_others(
    async_source: CredentialSource, role: Role
) -> None:
    """A timeout or a cancellation ends one task's waiting, not what it waited for."""

    async def scenario() -> None:
        role.open.clear()
        cancelled = asyncio.create_task(async_source.current_async())
        with pytest.raises(RequestTimeout, match="credentials"):
            await async_source.current_async(timeout=0.01)
        cancelled.cancel()
        role.open.set()
        assert (await async_source.current_async()).token == "token1"
        assert cancelled.cancelled()

    asyncio.run(scenario())
    assert role.issued == 1


def test_tasks_hear_of_a_failure_when_they_need_to(
    async_source: CredentialSource, role: Role, clock: Clock
) -> None:
    """A failed renewal is silent before the expiry and an error after it, until one succeeds."""

    async def scenario() -> None:
        await async_source.current_async()
        role.failing = True
        clock.now += HOUR - REFRESH_AHEAD + 1
        assert (await async_source.current_async()).token == "token1"
        await asyncio.to_thread(settle)
        clock.now += HOUR
        with pytest.raises(InvalidCredentials, match="CredentialRetrievalError"):
            await async_source.current_async()
        role.failing = False
        assert (await async_source.current_async()).token == "token2"

    asyncio.run(scenario())


def test_tasks_share_a_refresh(async_source: CredentialSource, role: Role, clock: Clock) -> None:
    """When the engine says that a token expired, one new one is made for all."""

    async def scenario() -> None:
        await async_source.current_async()
        clock.now += HOUR / 2
        found = await asyncio.gather(*(async_source.refresh_async() for _ in range(50)))
        assert {credentials.token for credentials in found} == {"token2"}
        assert (await async_source.refresh_async()).token == "token2"

    asyncio.run(scenario())
    assert role.issued == 2


def test_a_source_outlives_its_event_loop(
    async_source: CredentialSource, role: Role, clock: Clock
) -> None:
    """Credentials can be used and renewed on one event loop after another."""
    for use in range(1, 4):
        assert asyncio.run(async_source.current_async()).token == f"token{use}"
        clock.now += HOUR


def test_an_event_loop_that_ends_takes_its_attempt_along(
    async_source: CredentialSource, role: Role
) -> None:
    """An attempt that ended with its event loop is begun again on the next one."""

    async def scenario() -> None:
        with pytest.raises(RequestTimeout):
            await async_source.current_async(timeout=0)
        role.open.set()

    role.open.clear()
    asyncio.run(scenario())
    assert asyncio.run(async_source.current_async()).token is not None


@pytest.mark.parametrize("waits", ["in a task", "in a thread"])
def test_another_event_loop_that_ends_costs_nobody_else_the_credentials(
    async_source: CredentialSource, role: Role, waits: str
) -> None:
    """A caller that waits for a load of an event loop that ends begins a load of its own."""
    joined, left = threading.Event(), threading.Event()

    async def begin_and_leave() -> None:
        with pytest.raises(RequestTimeout):
            await async_source.current_async(timeout=0)
        assert await asyncio.to_thread(joined.wait, 60)
        left.set()  # `asyncio.run` cancels the load next.

    async def join() -> Credentials:
        found = asyncio.create_task(async_source.current_async(timeout=60))
        await asyncio.sleep(0)
        joined.set()
        return await found

    role.open.clear()
    with ThreadPoolExecutor(3) as pool:
        ends = pool.submit(asyncio.run, begin_and_leave())
        while role.asked == 0:
            time.sleep(0.001)
        if waits == "in a task":
            found = pool.submit(asyncio.run, join())
        else:
            found = pool.submit(async_source.current, timeout=60)
            joined.set()
        assert left.wait(60)
        role.open.set()
        ends.result()
        assert found.result().token is not None


# --- real sessions -------------------------------------------------------------------------


def test_credentials_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real sessions of both kinds give the keys of the environment, which never expire."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert from_every_session(boto3.Session, aioboto3.Session) == {Credentials("AKIDENV", "secret")}


def test_credentials_come_from_a_profile(tmp_path: Path) -> None:
    """Real sessions of both kinds give the keys and the token of a profile."""
    (tmp_path / "credentials").write_text(
        "[other]\naws_access_key_id = AKIDFILE\naws_secret_access_key = s\naws_session_token = t\n"
    )
    found = from_every_session(
        lambda: boto3.Session(profile_name="other"), lambda: aioboto3.Session(profile_name="other")
    )
    assert found == {Credentials("AKIDFILE", "s", "t")}


def test_credentials_come_from_a_process(tmp_path: Path) -> None:
    """What only botocore knows how to run works too, and says when it expires."""
    script = tmp_path / "issue"
    script.write_text(
        '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "s", '
        '"SessionToken": "t", "Expiration": "2099-01-01T00:00:00Z"}\'\n'
    )
    script.chmod(0o700)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    expiry = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    found = from_every_session(boto3.Session, aioboto3.Session)
    assert {(each.access_key, each.secret_key, each.token) for each in found} == {
        ("AKIDPROCESS", "s", "t")
    }
    assert all(abs(expiry - (each.expires_at or 0)) < 30 for each in found)


def test_keys_that_cannot_be_refreshed_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh of lasting keys gives the same keys again."""
    session = boto3.Session("AKID", "secret")
    assert CredentialSource(session).refresh() == Credentials("AKID", "secret")
    source = CredentialSource(aioboto3.Session("AKID", "secret"))
    assert asyncio.run(source.refresh_async()) == Credentials("AKID", "secret")


@pytest.mark.parametrize("session", [boto3.Session, aioboto3.Session])
def test_no_credentials_is_an_error_with_a_way_out(session: Callable[[], Any]) -> None:
    """Whoever has no credentials is told how to give some."""
    with pytest.raises(InvalidCredentials, match="AWS_ACCESS_KEY_ID"):
        asyncio.run(CredentialSource(session()).current_async())


def test_no_credentials_is_an_error_in_threads_too() -> None:
    """Whoever has no credentials is told how to give some."""
    with pytest.raises(InvalidCredentials, match="AWS_ACCESS_KEY_ID"):
        CredentialSource(boto3.Session()).current()


@pytest.mark.parametrize(
    "keys",
    [("AKID\n", "hush", "t"), ("AKID", "hush\r\n", "t"), ("AKID", "hush", "t t"), ("", "hush", "")],
)
def test_keys_that_no_header_can_carry_are_refused(keys: tuple[str, str, str]) -> None:
    """A stray line end is found here, by an error that shows none of the keys."""
    with pytest.raises(InvalidCredentials, match="white space") as raised:
        CredentialSource(boto3.Session(*keys)).current()
    assert "hush" not in str(raised.value)
    assert "AKID" not in str(raised.value)


# --- endpoints -----------------------------------------------------------------------------

both_sessions = pytest.mark.parametrize("session", [boto3.Session, aioboto3.Session])


@both_sessions
@pytest.mark.parametrize(
    ("environment", "region", "expected"),
    [
        ({}, "eu-west-1", Endpoint("eu-west-1", "https://dynamodb.eu-west-1.amazonaws.com")),
        ({}, "cn-north-1", Endpoint("cn-north-1", "https://dynamodb.cn-north-1.amazonaws.com.cn")),
        (
            {"AWS_DEFAULT_REGION": "us-west-2"},
            None,
            Endpoint("us-west-2", "https://dynamodb.us-west-2.amazonaws.com"),
        ),
        (
            {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000"},
            "eu-west-1",
            Endpoint("eu-west-1", "http://127.0.0.1:8000"),
        ),
        (
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "us-east-1",
            Endpoint("us-east-1", "https://dynamodb-fips.us-east-1.amazonaws.com"),
        ),
        (
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "us-east-1",
            Endpoint("us-east-1", "https://dynamodb.us-east-1.api.aws"),
        ),
    ],
)
def test_the_endpoint_is_botocores(
    monkeypatch: pytest.MonkeyPatch,
    session: Callable[[], Any],
    environment: dict[str, str],
    region: str | None,
    expected: Endpoint,
) -> None:
    """Regions, partitions and the settings of the environment lead where botocore would go."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolve_endpoint(session(), region, None) == expected


def test_the_endpoint_follows_the_profile(tmp_path: Path) -> None:
    """The region and the endpoint of a profile count."""
    (tmp_path / "config").write_text(
        "[profile dev]\nregion = eu-north-1\nservices = local\n"
        "[services local]\ndynamodb =\n  endpoint_url = http://127.0.0.1:9000\n"
    )
    expected = Endpoint("eu-north-1", "http://127.0.0.1:9000")
    for session in (boto3.Session, aioboto3.Session):
        assert resolve_endpoint(session(profile_name="dev"), None, None) == expected


@both_sessions
def test_the_endpoint_of_the_url_wins(
    monkeypatch: pytest.MonkeyPatch, session: Callable[[], Any]
) -> None:
    """What the caller writes is stronger than the environment; the region is still needed."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:8000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    found = resolve_endpoint(session(), None, "http://127.0.0.1:9000")
    assert found == Endpoint("us-west-2", "http://127.0.0.1:9000")


def test_an_endpoint_can_be_resolved_inside_an_event_loop() -> None:
    """An async store can be opened where a loop runs already."""

    async def scenario() -> Endpoint:
        return resolve_endpoint(aioboto3.Session(), "eu-west-1", None)

    assert asyncio.run(scenario()).region == "eu-west-1"


@both_sessions
def test_resolving_an_endpoint_needs_no_credentials(
    monkeypatch: pytest.MonkeyPatch, session: Callable[[], Any]
) -> None:
    """Nothing goes looking for keys before they are needed: that can take seconds."""

    def fail(*_: object) -> None:
        raise AssertionError("somebody looked for credentials")

    found = session()
    monkeypatch.setattr(type(found._session), "get_credentials", fail)
    assert resolve_endpoint(found, "eu-west-1", None).region == "eu-west-1"


@both_sessions
@pytest.mark.parametrize("endpoint_url", [None, "http://127.0.0.1:8000"])
def test_a_missing_region_is_an_error_with_a_way_out(
    session: Callable[[], Any], endpoint_url: str | None
) -> None:
    """Whoever names no region is told where to."""
    with pytest.raises(InvalidURL, match=r"\?region="):
        resolve_endpoint(session(), None, endpoint_url)


@pytest.mark.parametrize(
    "endpoint_url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:x",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a/../b",
        "http://127.0.0.1/a//b",
        "http://127.0.0.1/a/.",
        "http://127.0.0.1/%zz",
        "http://127.0.0.1?query",
        "http://user:hush@127.0.0.1",
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint_url: str) -> None:
    """An endpoint is scheme, host, port and a plain path; the error repeats no password."""
    with pytest.raises(InvalidURL) as raised:
        resolve_endpoint(boto3.Session(), "us-east-1", endpoint_url)
    assert "hush" not in str(raised.value)


@both_sessions
def test_a_region_that_cannot_be_is_refused(session: Callable[[], Any]) -> None:
    """What botocore cannot resolve is an error in the URL."""
    with pytest.raises(InvalidURL, match="no DynamoDB endpoint"):
        resolve_endpoint(session(), "not a region", None)


# --- help ----------------------------------------------------------------------------------


def in_threads(task: Callable[[], Any], count: int = 32) -> list[Any]:
    """What a task returns in many threads that begin together."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(count) as pool:
        return [future.result(10) for future in [pool.submit(run) for _ in range(count)]]


def settle() -> None:
    """Wait until nothing is loading credentials in the background."""
    for thread in threading.enumerate():
        if thread.name == "chalk-online-store-credentials":
            thread.join(60)


def from_every_session(
    blocking: Callable[[], Any], asynchronous: Callable[[], Any]
) -> set[Credentials]:
    """Credentials of a boto3 session and of an aioboto3 session, for threads and for tasks."""
    return {
        CredentialSource(blocking()).current(),
        asyncio.run(CredentialSource(blocking()).current_async()),
        CredentialSource(asynchronous()).current(),
        asyncio.run(CredentialSource(asynchronous()).current_async()),
    }
