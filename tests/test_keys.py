"""Primary keys to partition keys: no two keys share one, and a wrong key is refused."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store import Feature, InvalidKey, Namespace
from chalk_online_store.codec.keys import (
    MAX_KEY_BYTES,
    key_encoder,
    keys_decoder,
    keys_encoder,
    parse_key,
    partition_key,
)
from chalk_online_store.schema import PrimaryKey
from tests.helpers import stress

quick = settings(max_examples=stress(30))

# Few letters, so that keys differ by their separators and escapes more often than not.
texts = st.text(alphabet=":\\1a-", max_size=6) | st.text(max_size=6)
ints = st.integers(-20, 20) | st.integers()
ids = st.uuids() | st.integers(0, 3).map(lambda n: UUID(int=n))

KEYS: dict[Any, SearchStrategy[Any]] = {
    int: ints,
    str: texts,
    UUID: ids,
    tuple[str]: st.tuples(texts),
    tuple[str, str]: st.tuples(texts, texts),
    tuple[int, str]: st.tuples(ints, texts),
    tuple[str, int, str]: st.tuples(texts, ints, texts),
    tuple[UUID, str, str]: st.tuples(ids, texts, texts),
    tuple[int, int]: st.tuples(ints, ints),
}


def text(annotation: Any, key: Any) -> str:
    return key_encoder("user", PrimaryKey("id", annotation))(key)


@pytest.mark.parametrize("annotation", KEYS, ids=str)
@quick
@given(data=st.data())
def test_different_keys_never_share_a_text(annotation: Any, data: st.DataObject) -> None:
    """Whatever separators and escapes are in them, two keys have two partition keys."""
    keys = data.draw(st.lists(KEYS[annotation], min_size=2, max_size=5, unique=True))
    assert len({text(annotation, key) for key in keys}) == len(keys)


@quick
@given(st.lists(texts, min_size=1, max_size=4), st.lists(texts, min_size=1, max_size=4))
def test_tuples_of_any_length_never_share_a_text(left: list[str], right: list[str]) -> None:
    """Not even tuples of different lengths can be taken for one another."""
    assume(left != right)
    encoded = [text(tuple[(str,) * len(key)], tuple(key)) for key in (left, right)]  # type: ignore[misc]
    assert encoded[0] != encoded[1]


@quick
@given(st.sampled_from(["a", "aa", "b", "a9"]), st.sampled_from(["a", "aa", "b"]), texts, texts)
def test_namespaces_never_share_a_partition_key(a: str, b: str, one: str, two: str) -> None:
    """The keys of two namespaces differ, since no id holds a colon."""
    assume(a != b)
    assert partition_key(f"{a}:", text(str, one)) != partition_key(f"{b}:", text(str, two))


@pytest.mark.parametrize(
    ("annotation", "key", "expected"),
    [
        (int, 0, "0"),
        (int, -17, "-17"),
        (int, 2**70, "1180591620717411303424"),
        (str, "", ""),
        (str, "a:b\\c", "a:b\\c"),
        (UUID, UUID(int=255), "000000000000000000000000000000ff"),
        (tuple[int, str], (1, "a:b\\c"), "1:a\\:b\\\\c"),
        (tuple[int, str], [1, "a"], "1:a"),
        (tuple[str, str], ("", ""), ":"),
    ],
)
def test_the_text_of_a_key(annotation: Any, key: Any, expected: str) -> None:
    """The text of a key is part of the stored form: every version writes the same."""
    assert text(annotation, key) == expected


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 7


class Colour(enum.StrEnum):
    """A text with a name."""

    RED = "r"


class Mixed(str, enum.Enum):  # noqa: UP042 - the old way, whose str() is not its value
    """A text with a name, of the kind from before StrEnum."""

    RED = "r"


EQUALS: list[tuple[type, Any, Any]] = [
    (int, np.int8(7), 7),
    (int, np.uint64(2**64 - 1), 2**64 - 1),
    (int, Level.HIGH, 7),
    (str, np.str_("é:"), "é:"),
    (str, Colour.RED, "r"),
    (str, Mixed.RED, "r"),
]


@pytest.mark.parametrize(("annotation", "key", "plain"), EQUALS)
def test_equal_keys_share_a_text(annotation: Any, key: Any, plain: Any) -> None:
    """A numpy scalar or an enum member finds the entity that the value it equals does."""
    assert key == plain
    assert text(annotation, key) == text(annotation, plain)
    assert text(tuple[annotation, int], (key, 1)) == text(tuple[annotation, int], (plain, 1))


WRONG: list[tuple[Any, Any, str]] = [
    (int, "12345", "is int, not str"),
    (int, 12345.0, "is int, not float"),
    (int, True, "is int, not bool"),
    (int, np.True_, "is int, not bool"),
    (int, None, "is int, not NoneType"),
    (int, np.array([1, 2]), "is int, not ndarray"),
    (int, (12345,), "is int, not tuple of int"),
    (str, 12345, "is str, not int"),
    (str, b"12345", "is str, not bytes"),
    (UUID, "12345678-1234-5678-1234-567812345678", "is UUID, not str"),
    (tuple[int, str], (12345,), "is tuple of int, str, not tuple of int"),
    (tuple[int, str], ("12345", 1), "is tuple of int, str, not tuple of str, int"),
    (tuple[int, str], 12345, "is tuple of int, str, not int"),
    (tuple[int, str], "12345", "is tuple of int, str, not str"),
    (tuple[str, str], "12", "is tuple of str, str, not str"),
]


@pytest.mark.parametrize(("annotation", "key", "message"), WRONG)
def test_a_wrong_key_is_refused(annotation: Any, key: Any, message: str) -> None:
    """A key of another type is refused by a message with both types and without the key."""
    with pytest.raises(InvalidKey, match=message + r"\.$") as caught:
        text(annotation, key)
    assert str(caught.value).startswith("user.id: ")
    assert "12345" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_int_of_thousands_of_digits_is_refused() -> None:
    """A key that no table can hold raises `InvalidKey`, also where Python will not print it."""
    with pytest.raises(InvalidKey):
        partition_key("a:", text(int, 10**5000))


@pytest.mark.parametrize("letter", ["x", "é", "☃", "\U0001f600"])
def test_a_partition_key_has_2048_bytes_at_most(letter: str) -> None:
    """DynamoDB's limit counts bytes of UTF-8, the namespace's prefix among them."""
    room = (MAX_KEY_BYTES - len("ab:")) // len(letter.encode())
    assert len(partition_key("ab:", letter * room)) == room + 3
    with pytest.raises(InvalidKey, match="2048") as caught:
        partition_key("ab:", letter * (room + 1))
    assert letter * 3 not in str(caught.value)


@pytest.mark.parametrize("key", ["\ud800", "correct horse \udfff", "x" * 600 + "\ud800"])
def test_a_lone_surrogate_is_refused(key: str) -> None:
    """Text that UTF-8 cannot hold is refused here, not somewhere in a request."""
    with pytest.raises(InvalidKey, match="surrogates") as caught:
        partition_key("a:", text(str, key))
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize("annotation", KEYS, ids=str)
@quick
@given(data=st.data())
def test_many_keys_are_encoded_as_one_by_one(annotation: Any, data: st.DataObject) -> None:
    """Encoding keys all at once gives what each gives alone, or refuses what one alone is."""
    odd: list[Any] = [True, 1.5, Shade.DARK, "\u00e9", 10**5000, "x" * 3000]
    keys = data.draw(st.lists(KEYS[annotation] | st.sampled_from(odd), max_size=4))
    encode = keys_encoder("user", PrimaryKey("id", annotation))
    one_by_one = outcome(lambda: [partition_key("a:", text(annotation, key)) for key in keys])
    assert outcome(lambda: encode("a:", keys)) == one_by_one


@pytest.mark.parametrize("annotation", KEYS, ids=str)
@quick
@given(data=st.data())
def test_a_key_is_read_from_its_text(annotation: Any, data: st.DataObject) -> None:
    """The text of a key gives the key again, to commands and scans as to searches."""
    key = data.draw(KEYS[annotation])
    namespace = Namespace("user", annotation, [Feature("v", int)])
    found = text(annotation, key)
    assert parse_key(found, namespace) == key
    assert keys_decoder(namespace.key)("a:", [f"a:{found}"]) == [key]


def test_a_part_may_end_with_the_separator() -> None:
    """A colon that ends a part of a tuple, which is escaped, begins no further part."""
    namespace = Namespace("user", tuple[str, str], [Feature("v", int)])
    assert parse_key(r"a:b\:", namespace) == ("a", "b:")


def outcome(encode: Callable[[], list[str]]) -> list[str] | str:
    try:
        return encode()
    except InvalidKey as refused:
        return str(refused)


class Shade(enum.StrEnum):
    """A member formats as its value."""

    DARK = "dark"
