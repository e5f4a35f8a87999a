"""Signatures are those of botocore, for every request that this library sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.dynamodb.signing import CONTENT_TYPE, Credentials, Signer, host_header
from chalk_online_store.errors import InvalidURL

LASTING = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = Credentials("ASIAEXAMPLE", "anotherSecretKey", "FwoGZXIvYXdzEXAMPLETOKEN//+==", 9e9)
URL = "https://dynamodb.us-east-1.amazonaws.com"
NOW = 1_700_000_000.0

BODIES = {
    "BatchGetItem": b'{"RequestItems":{"t":{"Keys":[{"pk":{"S":"u#1"},"sk":{"S":"a"}}]}}}',
    "BatchWriteItem": b'{"RequestItems":{"t":[{"PutRequest":{"Item":{"pk":{"S":"u#1"}}}}]}}',
    "DeleteItem": b'{"TableName":"t","Key":{"pk":{"S":"u#1"},"sk":{"S":"a"}}}',
    "GetItem": b'{"TableName":"t","Key":{"pk":{"S":"u#1"},"sk":{"S":"a"}}}',
    "PutItem": '{"TableName":"t","Item":{"pk":{"S":"ü"},"sk":{"S":"☃"}}}'.encode(),
    "Query": b'{"TableName":"t","KeyConditionExpression":"pk = :p"}',
    "TransactWriteItems": b'{"TransactItems":[]}',
    "UpdateItem": b'{"TableName":"t","UpdateExpression":"SET a = :a"}',
}

seconds = st.floats(0, datetime(2100, 1, 1, tzinfo=UTC).timestamp())
visible = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200)


@pytest.mark.parametrize("credentials", [LASTING, TEMPORARY], ids=["lasting", "temporary"])
@pytest.mark.parametrize("operation", BODIES)
def test_every_operation_is_signed_as_by_botocore(operation: str, credentials: Credentials) -> None:
    """All headers of every operation equal botocore's, with and without a session token."""
    ours = Signer("us-east-1", URL).sign(credentials, operation, BODIES[operation], NOW)
    assert headers_of(ours) == botocores(
        "us-east-1", URL, credentials, operation, BODIES[operation], now=NOW
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://dynamodb.eu-west-1.amazonaws.com/",
        "https://dynamodb.eu-west-1.amazonaws.com:443",
        "https://dynamodb.eu-west-1.amazonaws.com:80",
        "https://dynamodb-fips.us-gov-west-1.amazonaws.com",
        "https://DynamoDB.Example.COM:8443",
        "http://localhost:8000",
        "http://127.0.0.1:80",
        "http://127.0.0.1:443/",
        "http://[::1]:8000",
        "https://[2001:DB8::1]",
        "https://user:password@proxy.example.com",
    ],
)
def test_every_endpoint_is_signed_as_by_botocore(url: str) -> None:
    """Ports, default ports, capital letters, IPv6 and user names end in botocore's signature."""
    ours = Signer("eu-west-1", url).sign(TEMPORARY, "GetItem", b"{}", NOW)
    assert headers_of(ours) == botocores("eu-west-1", url, TEMPORARY, "GetItem", b"{}", now=NOW)


@given(
    body=st.binary(max_size=5000),
    region=st.from_regex("[a-z]{2}(-gov)?-[a-z]{4,9}-[1-9]", fullmatch=True),
    credentials=st.builds(Credentials, visible, visible, st.none() | visible),
    now=seconds,
)
def test_whatever_is_signed_is_signed_as_by_botocore(
    body: bytes, region: str, credentials: Credentials, now: float
) -> None:
    """Bodies, regions, credentials and times of any kind end in botocore's signature."""
    ours = Signer(region, URL).sign(credentials, "Query", body, now)
    assert headers_of(ours) == botocores(region, URL, credentials, "Query", body, now=now)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([LASTING, TEMPORARY, Credentials("AKIDEXAMPLE", "rotated")]),
            st.sampled_from([0.0, 0.9, 1.0, 86399.999, 86400.0, 86401.0, 172800.0]),
        ),
        max_size=12,
    )
)
def test_nothing_kept_outlives_its_second_day_or_key(uses: list[tuple[Credentials, float]]) -> None:
    """One signer signs rightly through new seconds, days and keys, in any order."""
    signer = Signer("us-east-1", URL)
    for credentials, offset in uses:
        now = 1_700_006_400.0 + offset  # midnight in UTC
        ours = headers_of(signer.sign(credentials, "GetItem", b"{}", now))
        assert ours == botocores("us-east-1", URL, credentials, "GetItem", b"{}", now=now)


@pytest.mark.parametrize("url", ["", "dynamodb", "https://", "https://:8000", "http://a:port"])
def test_an_endpoint_without_a_host_is_refused(url: str) -> None:
    """A URL that no request could go to is found before anything is signed."""
    with pytest.raises(InvalidURL, match="endpoint URL"):
        Signer("us-east-1", url)


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-east-1\r\nX: y", URL),
        ("us-east-1\n", URL),
        ("us east", URL),
        ("", URL),
        ("us-east-1", "https://a b"),
        ("us-east-1", "https://a\x0bb"),
        ("us-east-1", "https://ü.example"),
    ],
)
def test_neither_host_nor_region_can_add_a_header(region: str, url: str) -> None:
    """What would end a line of the request, or change it, is refused before anything is signed."""
    with pytest.raises(InvalidURL, match="no request can carry"):
        Signer(region, url)


def test_the_dot_that_may_end_a_name_is_not_signed() -> None:
    """HTTP clients resolve `example.com.` and send `example.com`."""
    assert host_header("https://example.com.:8000") == "example.com:8000"


@pytest.mark.parametrize("text", [repr(TEMPORARY), str(TEMPORARY), f"{[TEMPORARY]}"])
def test_the_text_of_credentials_shows_none_of_them(text: str) -> None:
    """Credentials that end up in a log line or a traceback give nothing away."""
    assert text.strip("[]") == "Credentials()"


def test_a_signer_shows_no_secret() -> None:
    """The key that a signer keeps does not appear in its text."""
    signer = Signer("us-east-1", URL)
    signer.sign(TEMPORARY, "GetItem", b"{}", NOW)
    assert TEMPORARY.secret_key not in repr(signer)


def headers_of(lines: str) -> dict[str, str]:
    assert lines.endswith("\r\n")
    return dict(line.split(": ", 1) for line in lines[:-2].split("\r\n"))


def botocores(
    region: str, url: str, credentials: Credentials, operation: str, body: bytes, *, now: float
) -> dict[str, str]:
    """What botocore would send: its `add_auth`, at a time of our choice."""
    target = f"DynamoDB_20120810.{operation}"
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": target}
    request = AWSRequest("POST", url, headers=headers, data=body)
    keys = ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    auth: Any = SigV4Auth(keys, "dynamodb", region)
    request.context["timestamp"] = f"{datetime.fromtimestamp(int(now), UTC):%Y%m%dT%H%M%SZ}"
    auth._modify_request_before_signing(request)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(to_sign, request))
    return dict(request.headers.items())
