"""Proxies, certificates and endpoints: what botocore would use, in threads, asyncio and uvloop."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aioboto3
import boto3
import botocore.session
import pytest
from benchmarks.certificate import self_signed
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.endpoint import EndpointCreator
from botocore.httpsession import ProxyConfiguration

from chalk_online_store import (
    AsyncOnlineStore,
    ConnectionFailed,
    InvalidNetworkSettings,
    InvalidURL,
    OnlineStore,
    ProxyFailed,
    ProxyRefused,
    RequestTimeout,
    features,
)
from chalk_online_store.connect import connect as connect_store
from chalk_online_store.dynamodb.credentials import Endpoint, resolve_endpoint
from chalk_online_store.dynamodb.failures import failure
from chalk_online_store.dynamodb.http.target import Target
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.network.settings import (
    Network,
    Proxy,
    parse_proxy,
    proxy_for,
    resolve_network,
)
from chalk_online_store.network.sockets import USER_AGENT, BrokenResponse
from chalk_online_store.network.tunnel import ProxyBroken, Tunnel, TunnelRefused
from chalk_online_store.testing import Dynoxide, create_table
from tests.helpers import stress
from tests.proxies import HttpProxy, answer_of
from tests.test_http import GET, KINDS, Client, Server, answer, headers_of, received

pytestmark = pytest.mark.usefixtures("bare_environment")
HOST = "127.0.0.1"
AUTHORITY = "dynamodb.us-east-1.amazonaws.com:443"
VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "request_method")


@features
class User:
    id: int
    a: int


MODEL: Any = botocore.session.Session().get_service_model("dynamodb")
both_sessions = pytest.mark.parametrize("session", [boto3.Session, aioboto3.Session])


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the network, and no profile."""
    for name in (*VARIABLES, *map(str.upper, VARIABLES), "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, and its key, that nobody has signed but itself."""
    return self_signed(tmp_path / "bundle.pem")


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """A client for threads, asyncio or uvloop."""
    found: type[Client] = request.param
    return found


def engine(*, tls: Path | None = None, requests: list[bytes] | None = None) -> Server:
    """A server that answers each request, and keeps it."""

    def behave(connection: Any) -> None:
        while True:
            request = received(connection)
            if requests is not None:
                requests.append(request)
            connection.sendall(answer())

    if tls is None:
        return Server(behave)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls)
    return Server(behave, context)


class Through:
    """A client of an endpoint, as a session of the environment reaches it."""

    def __init__(self, kind: type[Client], url: str, session: Any = None) -> None:
        endpoint = resolve_endpoint(session or boto3.Session(), "us-east-1", url)
        self.client = kind(url)
        transport: Any = self.client.transport
        transport._target = Target(endpoint)

    def __enter__(self) -> Client:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()


# --- tunnels --------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_tls_goes_through_a_tunnel(
    kind: type[Client], bundle: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """With HTTPS_PROXY, requests share a CONNECT tunnel, within which TLS ends at the engine."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with engine(tls=bundle) as server, HttpProxy(server.port) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        with Through(kind, server.url) as client:
            assert [client.send().status for _ in range(3)] == [200] * 3
    assert proxy.lines == [f"CONNECT {HOST}:{server.port} HTTP/1.1"]
    assert f"User-Agent: {USER_AGENT}".encode() in proxy.heads[0]
    assert b"Authorization" not in proxy.heads[0]


def test_a_proxy_can_ask_for_a_password(
    kind: type[Client], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password of the proxy's URL go to the proxy, and not to the engine."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    requests: list[bytes] = []
    with (
        engine(tls=bundle, requests=requests) as server,
        HttpProxy(server.port, user="me:p@ss") as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%40ss@{HOST}:{proxy.port}")
        with Through(kind, server.url) as client:
            assert client.send().status == 200
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]
    assert b"Proxy-Authorization" not in requests[0]


@pytest.mark.parametrize(
    ("status", "kind_of_error", "said"),
    [
        (407, ProxyRefused, "does not accept the user and password"),
        (403, ProxyRefused, "refused a tunnel to"),
        (502, ProxyFailed, "could not open a tunnel to"),
        (503, ProxyFailed, "HTTP 503"),
    ],
)
def test_a_proxy_that_refuses_is_named(
    kind: type[Client],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind_of_error: type[Exception],
    said: str,
) -> None:
    """A refused CONNECT names the proxy, its status and the remedy; only 5xx may be retried."""
    with HttpProxy(9, status=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hush@{HOST}:{proxy.port}")
        with (
            Through(kind, "https://dynamodb.us-east-1.amazonaws.com") as client,
            pytest.raises(kind_of_error, match=said) as raised,
        ):
            client.send()
    error: Any = raised.value
    assert f"{HOST}:{proxy.port}" in str(error)
    assert AUTHORITY in str(error)
    assert "hush" not in str(error)
    assert (error.http_status, error.retryable) == (status, status >= 500)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_proxy_that_cannot_be_reached_is_named(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """A proxy that refuses connections is named in the error, beside the engine."""
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{HOST}:1")
    with (
        Through(kind, f"{scheme}://localhost:8000") as client,
        pytest.raises(
            ProxyFailed, match=rf"localhost:8000 through the proxy {HOST}:1 failed: "
        ) as raised,
    ):
        client.send()
    assert "Add localhost to NO_PROXY" in str(raised.value)


def test_tls_through_a_proxy_still_checks_the_engine(
    kind: type[Client], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that ends TLS by itself is found out: its certificate is not the engine's."""
    with engine(tls=bundle) as server, HttpProxy(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with (
            Through(kind, "https://dynamodb.us-east-1.amazonaws.com") as client,
            pytest.raises(ConnectionFailed, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.send()


def test_a_silent_proxy_is_bounded_by_the_timeout(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that accepts and does not answer costs no more than the timeout, and is named."""

    def be_silent(connection: Any) -> None:
        received(connection)
        connection.recv(1)

    with Server(be_silent) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with (
            Through(kind, "https://dynamodb.us-east-1.amazonaws.com") as client,
            pytest.raises(RequestTimeout, match=f"through the proxy {HOST}:{proxy.port} did not"),
        ):
            client.send(timeout=0.2)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n"],
        [b"HTTP/1.0 200 Connection established\r\n", b"Via: x\r\n", b"\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 299 Fine\r\n\r\n"],
    ],
)
def test_a_tunnel_opens_with_any_2xx(pieces: list[bytes]) -> None:
    """A tunnel is open once the head of a 2xx is whole, however it is cut up."""
    tunnel = Tunnel(Proxy("proxy", 3128), AUTHORITY)
    assert [tunnel.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    "data",
    [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\n\r\nmore", b"HTTP/1.1 200 OK\r\nA:" + b"a" * 2**17],
)
def test_a_proxy_that_is_none_is_refused(data: bytes) -> None:
    """An end, another protocol, early bytes and an endless head break the connection."""
    with pytest.raises(ProxyBroken):
        Tunnel(Proxy("proxy", 3128), AUTHORITY).feed(data)


def test_every_refusal_of_a_tunnel_has_its_status() -> None:
    """3xx, 4xx and 5xx are refusals, with or without a body."""
    for status in (301, 400, 403, 407, 500, 504):
        with pytest.raises(TunnelRefused) as raised:
            Tunnel(Proxy("proxy", 3128), AUTHORITY).feed(answer_of(status))
        assert raised.value.status == status


def test_garbage_from_a_proxy_never_opens_a_tunnel() -> None:
    """Whatever bytes a proxy sends, feeding ends with True or `BrokenResponse`, nothing else."""
    rng = random.Random(5)
    for _ in range(stress(300)):
        tunnel = Tunnel(Proxy("proxy", 3128), AUTHORITY)
        start = rng.choice([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 "])
        try:
            opened = tunnel.feed(start + rng.randbytes(rng.randrange(200)))
        except BrokenResponse:
            continue
        assert not opened or start.endswith(b"OK\r\n")


def test_a_password_that_is_missing_is_named(
    kind: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that asks for a password, which its URL lacks, is reported with the remedy."""
    with HttpProxy(9, user="me:hush") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with (
            Through(kind, "https://dynamodb.us-east-1.amazonaws.com") as client,
            pytest.raises(ProxyRefused, match="Set user and password in its URL"),
        ):
            client.send()


# --- forwarding -----------------------------------------------------------------------------


def test_http_is_forwarded(kind: type[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTP_PROXY, a request for an http:// endpoint has the whole URL and the password."""
    requests: list[bytes] = []
    with engine(requests=requests) as server, HttpProxy(server.port, user="me:hush") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hush@{HOST}:{proxy.port}")
        with Through(kind, f"http://dynamodb.local:{server.port}/db") as client:
            assert client.send().status == 200
    assert proxy.lines == [f"POST http://dynamodb.local:{server.port}/db HTTP/1.1"]
    assert headers_of(requests[0])["host"] == f"dynamodb.local:{server.port}"


def test_a_forwarding_proxy_that_asks_for_a_password_is_named() -> None:
    """407 to a forwarded request is `ProxyRefused`, with the remedy."""
    error = failure(Response(407, {}, b"<html>"), "GetItem on table 'features'")
    assert type(error) is ProxyRefused
    assert "Set user and password in the proxy's URL" in str(error)


def test_a_response_that_is_not_of_aws_says_so() -> None:
    """An error without AWS's code names proxies and load balancers as its origin."""
    error = failure(Response(503, {}, b"<html>"), "GetItem on table 'features'")
    assert "a proxy or a load balancer sent it" in str(error)
    error = failure(Response(503, {}, b'{"__type":"InternalServerError"}'), "GetItem")
    assert "proxy" not in str(error)


@pytest.mark.parametrize("kind_of_store", [OnlineStore, AsyncOnlineStore])
def test_a_store_uses_the_proxy_of_its_session(dynoxide: Dynoxide, kind_of_store: Any) -> None:
    """A store reads and writes through the proxy of the Config of the session that it is given."""
    table = f"through-proxy-{kind_of_store.__name__}"
    create_table(dynoxide.endpoint_url, table, region="us-east-1")
    core = botocore.session.Session()
    session = boto3.Session(botocore_session=core)
    url = f"dynamodb:///{table}?region=us-east-1&endpoint_url={dynoxide.endpoint_url}"
    with HttpProxy(urlsplit(dynoxide.endpoint_url).port or 0) as proxy:
        core.set_default_client_config(Config(proxies={"http": proxy.url}))
        if kind_of_store is OnlineStore:
            with OnlineStore.open(url, schema=[User], session=session) as store:
                store.write(User, [{"id": 1, "a": 2}])
                assert store.read(User, [1])[0]["a"] == 2
        else:
            asyncio.run(write_and_read(url, session))
        assert f"POST {dynoxide.endpoint_url}/ HTTP/1.1" in proxy.lines


async def write_and_read(url: str, session: Any) -> None:
    async with AsyncOnlineStore.open(url, schema=[User], session=session) as store:
        await store.write(User, [{"id": 1, "a": 2}])
        assert (await store.read(User, [1]))[0]["a"] == 2


# --- which proxy ----------------------------------------------------------------------------


def botocores_proxy(core: Any, url: str) -> tuple[str, dict[str, str]] | None:
    """The proxy of an endpoint of botocore, and the headers that the proxy gets."""
    config = core.get_default_client_config()
    creator = EndpointCreator(core.get_component("event_emitter"))
    endpoint = creator.create_endpoint(
        MODEL, "us-east-1", url, proxies=config.proxies if config else None
    )
    configuration: ProxyConfiguration = endpoint.http_session._proxy_config
    proxy = configuration.proxy_url_for(url)
    return (proxy, configuration.proxy_headers_for(proxy)) if proxy else None


PROXIES = (
    "http://proxy.corp:3128",
    "proxy.corp:3128",
    "//proxy.corp",
    "http://me:p%40ss@proxy.corp:80",
    "http://me@proxy.corp",
    "http://:hush@proxy.corp",
    "http://[::1]:3128/",
    "",
)
BYPASSES = (
    "",
    "*",
    "localhost",
    "localhost,127.0.0.1",
    "amazonaws.com",
    ".amazonaws.com",
    "dynamodb.us-east-1.amazonaws.com",
    "us-east-1",
    "127.0.0.1:8000",
    " localhost , .internal ",
    "127.0.0.0/8",
)
URLS = (
    "https://dynamodb.us-east-1.amazonaws.com",
    "http://localhost:8000",
    "http://127.0.0.1:8000",
    "https://127.0.0.1:8443",
    "http://engine.internal",
    "https://[::1]:8443",
)


@pytest.mark.parametrize("seed", range(stress(6)))
def test_the_proxy_is_botocores(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """For generated environments and Configs, proxy and headers are those of botocore's client."""
    rng = random.Random(seed)
    for name in ("HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "NO_PROXY", "no_proxy"):
        choices = BYPASSES if name.lower() == "no_proxy" else PROXIES
        if rng.random() < 0.6:
            monkeypatch.setenv(name, rng.choice(choices))
    core = botocore.session.Session()
    if rng.random() < 0.4:
        named: Any = {each: rng.choice(PROXIES) for each in ("http", "https") if rng.random() < 0.6}
        core.set_default_client_config(Config(proxies=named))
    session = boto3.Session(botocore_session=core)
    for url in URLS:
        expected = botocores_proxy(core, url)
        proxy = resolve_network(session, url).proxy
        if expected is None:
            assert proxy is None
            continue
        parts = urlsplit(expected[0])
        assert proxy is not None
        assert (proxy.host, proxy.port) == (parts.hostname, parts.port or 80)
        assert proxy.authorization == expected[1].get("Proxy-Authorization", "")


def test_no_proxy_does_not_concern_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in botocore, `Config(proxies=...)` wins over the environment, NO_PROXY included."""
    monkeypatch.setenv("NO_PROXY", "*")
    assert proxy_for("https://dynamodb.test", {"https": "http://proxy:1"}) == "http://proxy:1"
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTPS_PROXY", "http://other:1")
    assert proxy_for("https://dynamodb.test", {}) is None


@both_sessions
def test_a_session_has_its_own_proxy_and_certificates(session: Any) -> None:
    """A session's default Config names the proxy and the client's certificate."""
    found = session()
    found._session.set_default_client_config(
        Config(proxies={"https": "http://me:hush@proxy:3128"}, client_cert=("/c.pem", "/k.pem"))
    )
    network = resolve_endpoint(found, "us-east-1", None).network
    assert network.proxy == Proxy("proxy", 3128, "Basic bWU6aHVzaA==")
    assert network.client_certificate == ("/c.pem", "/k.pem")
    assert "hush" not in repr(network)
    assert "bWU6" not in repr(network)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hush@proxy",
        "socks5://me:hush@proxy",
        "http://me:hush@",
        "http://me:hush@p:x",
        "http://me:hüsh@proxy",
        "http://me:hush@a b",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(text: str) -> None:
    """TLS to the proxy, SOCKS and broken URLs are refused without repeating the password."""
    with pytest.raises(InvalidNetworkSettings) as raised:
        parse_proxy(text)
    assert "hush" not in str(raised.value)
    assert "hüsh" not in str(raised.value)


def test_settings_for_the_proxy_itself_are_refused() -> None:
    """`Config(proxies_config=...)` is refused if there is a proxy, and has no effect otherwise."""
    for proxies in ({"https": "http://proxy:3128"}, {}):
        core = botocore.session.Session()
        config: Any = {"proxies": proxies, "proxies_config": {"proxy_ca_bundle": "/ca.pem"}}
        core.set_default_client_config(Config(**config))
        session = boto3.Session(botocore_session=core)
        if proxies:
            with pytest.raises(InvalidNetworkSettings, match="proxies_config"):
                resolve_network(session, "https://dynamodb.test")
        else:
            assert resolve_network(session, "https://dynamodb.test").proxy is None


# --- which authorities ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(stress(6)))
def test_the_authorities_are_botocores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int
) -> None:
    """For generated environments and profiles, the CA bundle is that of botocore's client."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        monkeypatch.setenv("AWS_CA_BUNDLE", "/of/aws.pem")
    if rng.random() < 0.5:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/of/requests.pem")
    own = "ca_bundle = /of/profile.pem\n" if rng.random() < 0.5 else ""
    (tmp_path / "config").write_text(f"[profile dev]\nregion = us-east-1\n{own}")
    session = boto3.Session(profile_name="dev" if rng.random() < 0.8 else None)
    client = session.client(
        "dynamodb", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    verify = client._endpoint.http_session._verify  # type: ignore[attr-defined]
    found = resolve_network(session, "https://dynamodb.us-east-1.amazonaws.com").ca_bundle
    assert (True if found is None else found) == verify


def test_the_bundle_of_a_profile_is_trusted(
    kind: type[Client], bundle: Path, tmp_path: Path
) -> None:
    """`ca_bundle` of the profile decides whom a connection trusts."""
    (tmp_path / "config").write_text(f"[profile dev]\nca_bundle = {bundle}\n")
    with engine(tls=bundle) as server:
        with Through(kind, server.url, boto3.Session(profile_name="dev")) as client:
            assert client.send().status == 200
        with Through(kind, server.url) as client, pytest.raises(ConnectionFailed):
            client.send()


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_an_empty_bundle_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """As in botocore 1.44, an empty path is an error, and not a connection without verification."""
    monkeypatch.setenv(variable, " ")
    with pytest.raises(InvalidNetworkSettings, match="empty path"):
        resolve_network(boto3.Session(), "https://dynamodb.us-east-1.amazonaws.com")


def test_a_client_certificate_is_shown(kind: type[Client], bundle: Path) -> None:
    """`Config(client_cert=...)` is shown to a server that asks for it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(bundle))
    context.load_cert_chain(bundle)
    context.verify_mode = ssl.CERT_REQUIRED

    def behave(connection: Any) -> None:
        received(connection)
        connection.sendall(answer())

    with Server(behave, context) as server:
        client = kind(server.url)
        network = Network(ca_bundle=str(bundle), client_certificate=str(bundle))
        transport: Any = client.transport
        transport._target = Target(Endpoint("us-east-1", server.url, network))
        assert client.send().status == 200
        client.close()


# --- which endpoint -------------------------------------------------------------------------

REGIONS = (
    "us-east-1",
    "us-gov-west-1",
    "cn-north-1",
    "us-iso-east-1",
    "fips-us-east-1",
)


class Stop(Exception):
    """Ends a request before it is sent."""


def botocores_url(session: Any, region: str) -> str | None:
    """Where a real request of botocore goes; None if there is no such endpoint."""

    def stop(request: Any, **_: Any) -> None:
        seen.append(request.url)
        raise Stop

    seen: list[str] = []
    try:
        client = session.client(
            "dynamodb", region, aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.meta.events.register("before-send", stop)
        client.list_tables()
    except Stop:
        return seen[0].removesuffix("/")
    except botocore.exceptions.BotoCoreError:
        return None
    raise AssertionError("the request was not stopped")


@pytest.mark.parametrize("dual_stack", ["true", "false"])
@pytest.mark.parametrize("fips", ["true", "false"])
def test_the_endpoint_is_that_of_botocores_requests(
    monkeypatch: pytest.MonkeyPatch, fips: str, dual_stack: str
) -> None:
    """FIPS and dual-stack lead to the host of botocore's requests, in every partition."""
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", fips)
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", dual_stack)
    session = boto3.Session()
    for region in REGIONS:
        expected = botocores_url(session, region)
        if expected is None:
            with pytest.raises(InvalidURL):
                resolve_endpoint(session, region, None)
        else:
            assert resolve_endpoint(session, region, None).url == expected


@both_sessions
def test_fips_in_govcloud(monkeypatch: pytest.MonkeyPatch, session: Any) -> None:
    """GovCloud's standard endpoint is its FIPS endpoint, signed for its region."""
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    found = resolve_endpoint(session(), "us-gov-west-1", None)
    assert (found.region, found.url) == (
        "us-gov-west-1",
        "https://dynamodb.us-gov-west-1.amazonaws.com",
    )


@both_sessions
@pytest.mark.parametrize("mode", ["required", "preferred", "disabled"])
def test_endpoints_of_accounts(monkeypatch: pytest.MonkeyPatch, session: Any, mode: str) -> None:
    """`required` is refused with a remedy, and the other modes use the regional endpoint."""
    monkeypatch.setenv("AWS_ACCOUNT_ID_ENDPOINT_MODE", mode)
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    if mode == "required":
        with pytest.raises(InvalidNetworkSettings, match="AWS_ACCOUNT_ID_ENDPOINT_MODE"):
            resolve_endpoint(session(), "us-east-1", None)
    else:
        found = resolve_endpoint(session(), "us-east-1", None)
        assert found.url == "https://dynamodb.us-east-1.amazonaws.com"
    own = "https://123456789012.ddb.us-east-1.amazonaws.com"
    assert resolve_endpoint(session(), "us-east-1", own).url == own


def test_one_endpoint_for_several_regions_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS_ENDPOINT_URL with two regions logs a warning, and `endpoint_url=` does not."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8000")
    with caplog.at_level(logging.WARNING):
        for url in (
            "dynamodb:///features?region=us-east-1,us-west-2",
            "dynamodb:///features?region=us-east-1",
            "dynamodb:///features?region=us-east-1,us-west-2&endpoint_url=http://a,http://a",
        ):
            for transport in connect_store(url, None).transports.values():
                transport.close()
    (record,) = caplog.records
    assert record.__dict__["event.name"] == "chalk.online_store.endpoint.shared"
    assert "us-east-1, us-west-2" in record.getMessage()


# --- paths ----------------------------------------------------------------------------------


def test_a_path_is_part_of_each_request(kind: type[Client]) -> None:
    """An endpoint with a path gets requests for that path."""
    requests: list[bytes] = []
    with (
        engine(requests=requests) as server,
        Through(kind, f"{server.url}/gateway/dynamodb") as client,
    ):
        client.send()
    assert requests[0].startswith(b"POST /gateway/dynamodb HTTP/1.1\r\n")


@pytest.mark.parametrize("path", ["", "/", "/db", "/db/", "/a-b_c.d~e/f", "/a%20b", "/a%2Fb/c"])
def test_a_path_is_signed_as_botocore_signs_it(path: str) -> None:
    """The signature of a request to a path is botocore's."""
    credentials = BotocoreCredentials("AKID", "secret")
    url = f"https://gateway.test{path}"
    ours = Signer("us-east-1", url).sign(Credentials("AKID", "secret"), "GetItem", b"{}", 0)
    ours_by_name = dict(line.split(": ", 1) for line in ours.split("\r\n") if line)
    request = AWSRequest("POST", url, data=b"{}")
    for name in ("Content-Type", "X-Amz-Target", "X-Amz-Date"):
        request.headers[name] = ours_by_name[name]
    request.context["timestamp"] = "19700101T000000Z"
    theirs: Any = SigV4Auth(credentials, "dynamodb", "us-east-1")
    canonical = theirs.canonical_request(request)
    signature = theirs.signature(theirs.string_to_sign(request, canonical), request)
    assert ours_by_name["Authorization"].endswith(f"Signature={signature}")


# --- who asks -------------------------------------------------------------------------------


def test_requests_name_the_library_and_its_version(kind: type[Client]) -> None:
    """The User-Agent is `chalk-online-store/` and a version."""
    requests: list[bytes] = []
    with engine(requests=requests) as server, Through(kind, server.url) as client:
        client.send(GET)
    name, _, number = headers_of(requests[0])["user-agent"].partition("/")
    assert (name, number[0].isdigit()) == ("chalk-online-store", True)
