"""Bad input gets an error of its own, and nothing is sent."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from chalk_online_store import (
    Feature,
    InvalidKey,
    InvalidURL,
    InvalidValue,
    ItemTooLarge,
    Namespace,
    OnlineStore,
    OnlineStoreError,
    StoreClosed,
    UnknownFeature,
    features,
)
from tests.fakes import SimulatedStore

NOW = datetime.now(UTC)
EVERY = Namespace(
    "every",
    str,
    [
        Feature("flag", bool),
        Feature("count", int),
        Feature("ratio", float),
        Feature("price", Decimal),
        Feature("when", datetime),
        Feature("code", UUID),
        Feature("note", str | None),
        Feature("blob", bytes),
    ],
)


@features
class Other:
    id: int


BAD_ROWS: list[tuple[dict[str, Any], type[OnlineStoreError], str]] = [
    ({"id": "k", "flag": 1}, InvalidValue, r"every\.flag is bool, not int"),
    ({"id": "k", "count": True}, InvalidValue, r"every\.count is int, not bool"),
    ({"id": "k", "count": 1.0}, InvalidValue, r"every\.count is int, not float"),
    ({"id": "k", "count": 10**38}, InvalidValue, "38 digits"),
    ({"id": "k", "ratio": "0.5"}, InvalidValue, r"every\.ratio is float, not str"),
    ({"id": "k", "ratio": 2**53 + 1}, InvalidValue, "no float holds"),
    ({"id": "k", "price": 1.5}, InvalidValue, r"every\.price is decimal, not float"),
    ({"id": "k", "when": datetime(2026, 1, 1)}, InvalidValue, "time zone"),  # noqa: DTZ001
    ({"id": "k", "code": str(UUID(int=7))}, InvalidValue, r"every\.code is uuid, not str"),
    ({"id": "k", "count": None}, InvalidValue, r"\| None"),
    ({"id": "k", "note": "\ud800"}, InvalidValue, "surrogates"),
    ({"id": "k", "blob": b"x" * 500_000}, ItemTooLarge, "500,0"),
    ({"flag": True}, InvalidKey, "no primary key 'id'"),
    ({"id": 7, "flag": True}, InvalidKey, r"every\.id: the primary key is str, not int"),
    ({"id": "x" * 3000, "flag": True}, InvalidKey, "2048"),
    ({"id": "k", "flagg": True}, UnknownFeature, "'flagg'"),
    ({"id": "k", "other.flag": True}, UnknownFeature, "'other.flag'"),
    ({"id": "k", "flag": True, "every.flag": True}, InvalidValue, "names a feature twice"),
]


@pytest.mark.parametrize("known", [False, True], ids=["first use", "registered"])
@pytest.mark.parametrize("ordering", ["event", "arrival"])
@pytest.mark.parametrize(("row", "error", "text"), BAD_ROWS, ids=lambda value: str(value)[:40])
def test_a_bad_row_stops_the_whole_write(
    row: dict[str, Any], error: type[OnlineStoreError], text: str, ordering: str, known: bool
) -> None:
    """The error names what is wrong, never the value, and not even good rows are sent."""
    store = SimulatedStore([EVERY])
    good = {"id": "good", "count": 1}
    if known:
        store.write(EVERY, [good])
        store.driver.sent.clear()
    with pytest.raises(error, match=text) as raised:
        store.write(EVERY, [good, row], ordering=ordering)
    assert store.driver.sent == []
    assert "position 1" in raised.value.__notes__[0]


@pytest.mark.parametrize("known", [False, True], ids=["first use", "registered"])
@pytest.mark.parametrize(
    ("keys", "names", "error"),
    [
        ([1], None, InvalidKey),
        (["k", None], None, InvalidKey),
        (["x" * 3000], None, InvalidKey),
        (["k"], ["flagg"], UnknownFeature),
    ],
)
def test_a_bad_read_sends_nothing(
    keys: list[Any], names: list[str] | None, error: type[OnlineStoreError], known: bool
) -> None:
    """Keys and feature names are checked before the table is asked."""
    store = SimulatedStore([EVERY])
    if known:
        store.write(EVERY, [{"id": "good", "count": 1}])
        store.driver.sent.clear()
    with pytest.raises(error):
        store.read(EVERY, keys, names)
    assert store.driver.sent == []


def test_a_namespace_outside_the_schema_is_refused() -> None:
    """A store serves the namespaces it was opened with, and says how to add one."""
    with pytest.raises(UnknownFeature, match="schema="):
        SimulatedStore([EVERY]).read(Other, [1])


@pytest.mark.parametrize(
    "observed_at",
    [datetime(2026, 1, 1), datetime(1960, 1, 1, tzinfo=UTC), [NOW], ["now", "now"]],  # noqa: DTZ001
    ids=["naive", "before 1970", "too few", "no datetime"],
)
def test_a_bad_observed_at_is_refused(observed_at: Any) -> None:
    """Times without zone, before 1970, of another number or type are refused unsent."""
    store = SimulatedStore([EVERY])
    with pytest.raises(InvalidValue, match="observed_at"):
        store.write(EVERY, [{"id": "a", "count": 1}, {"id": "b"}], observed_at=observed_at)
    assert store.driver.sent == []


def test_single_features_are_deleted_in_event_time_alone() -> None:
    """By arrival an item is replaced as a whole, so its other features would go, too."""
    store = SimulatedStore([EVERY])
    delete = store.core.delete(
        EVERY, ["k"], ["count"], observed_at=None, ordering="arrival", timeout=None
    )
    with pytest.raises(InvalidValue, match="arrival"):
        store.driver.run(delete)
    assert store.driver.sent == []


def test_another_ordering_is_refused() -> None:
    """An ordering that is none is told which there are."""
    store = SimulatedStore([EVERY])
    with pytest.raises(InvalidValue, match='"event" or "arrival"'):
        store.write(EVERY, [{"id": "k", "count": 1}], ordering="latest")
    assert store.driver.sent == []


def test_a_closed_store_says_so() -> None:
    """Reads, writes and deletes after `close` raise, and closing twice is fine."""
    store = OnlineStore.open("sqlite://", [EVERY])
    store.close()
    store.close()
    for use in (
        lambda: store.read(EVERY, ["k"]),
        lambda: store.write(EVERY, []),
        lambda: store.delete(EVERY, ["k"]),
    ):
        with pytest.raises(StoreClosed):
            use()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "dynamodb://"),
        ("features.db", "dynamodb://"),
        ("postgres://host/db", "'postgres'"),
        ("sqlite://features.db", "sqlite:///"),
        ("sqlite:///f.db?mode=ro", "sqlite:///"),
        ("dynamodb://table", "three slashes"),
        ("dynamodb:///", "three slashes"),
        ("dynamodb:///a/b", "three slashes"),
        ("dynamodb:///table?regoin=x", "'regoin'"),
        ("dynamodb:///table?region=", "one value"),
        ("dynamodb:///table?region=a&region=b", "one value"),
        ("dynamodb:///table?region=a,b&endpoint_url=http://x", "one URL for each"),
        ("dynamodb:///table?region=a,a", "each one once"),
        ("dynamodb:///table?region=a,b&home=c", "one of region="),
        ("dynamodb:///table?region=us-east-1&profile=nobody", "nobody"),
        ("dynamodb:///table?region=us-east-1&endpoint_url=nowhere", "http"),
        ("dynamodb:///table?region=us-east-1&pk=a&sk=a", "three different"),
    ],
)
def test_a_bad_url_is_refused(url: str, text: str) -> None:
    """Each way to get a URL wrong is told with the way to get it right."""
    with pytest.raises(InvalidURL, match=text):
        OnlineStore.open(url, [EVERY])


def test_a_url_without_region_says_where_to_put_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No region anywhere is refused at opening."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(InvalidURL, match="region="):
        OnlineStore.open("dynamodb:///table", [EVERY])


def test_nothing_of_a_row_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At the most talkative level no log line holds a key or a value."""
    caplog.set_level(logging.DEBUG)
    with OnlineStore.open("sqlite://", [EVERY]) as store:
        store.write(EVERY, [{"id": "secret-key", "note": "secret-value"}])
        store.read(EVERY, ["secret-key"])
    assert "secret" not in caplog.text
