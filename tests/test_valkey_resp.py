"""The wire of Valkey: commands to bytes, bytes to replies, and replies of another form."""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from chalk_online_store.valkey import commands
from chalk_online_store.valkey.commands import with_text
from chalk_online_store.valkey.pipeline import Pipeline
from chalk_online_store.valkey.resp import BrokenReply, Command, ErrorReply, ReplyReader, pack
from chalk_online_store.valkey.scripts import MERGE, SWAP
from chalk_online_store.valkey.transport.shared import slot_of

ROOM = 1 << 20

ARGUMENTS = st.one_of(st.text(), st.binary(), st.integers())
REPLIES = st.recursive(
    st.one_of(
        st.none(),
        st.binary(max_size=300),
        st.integers(-(2**63), 2**63 - 1),
        st.text(st.characters(codec="ascii", exclude_characters="\r\n")).map(ErrorReply),
    ),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


def rendered(reply: Any) -> bytes:
    """A reply as a server sends it."""
    match reply:
        case None:
            return b"$-1\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case ErrorReply(text):
            return b"-%b\r\n" % text.encode()
    return b"*%d\r\n" % len(reply) + b"".join(map(rendered, reply))


def read(data: bytes, count: int, rng: random.Random) -> list[Any]:
    """What a reader makes of bytes that come in any pieces."""
    reader = ReplyReader(count, len(data))
    at = 0
    while at < len(data):
        assert not reader.done
        step = rng.choice((1, 2, 7, 100, len(data)))
        reader.feed(data[at : at + step])
        at += step
    assert reader.done
    return reader.replies


@settings(deadline=None)
@given(st.lists(st.lists(ARGUMENTS, min_size=1).map(tuple), min_size=1))
def test_commands_are_packed_as_hiredis_packs_them(asked: list[Command]) -> None:
    """The bytes of any commands equal those of hiredis."""
    packed = b"".join(hiredis.pack_command(command) for command in asked)  # type: ignore[arg-type]
    assert pack(asked) == packed


@settings(deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_replies_are_read_in_any_pieces(replies: list[Any], rng: random.Random) -> None:
    """A reader returns the replies of a server, however the network cuts them."""
    data = b"".join(map(rendered, replies))
    assert read(data, len(replies), rng) == replies


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("$*:+-0123456789\r\nab").map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever arrives is a reply, a part of one, or a `BrokenReply`; hiredis reads the same."""
    reader = ReplyReader(1, ROOM)
    try:
        done = reader.feed(data) if data else False
    except BrokenReply:
        return
    if done:
        reference = hiredis.Reader(replyError=ErrorReply)  # type: ignore[arg-type]
        reference.feed(data)
        assert reader.replies == [reference.gets()]


HOSTILE = {
    "a long string": b"$999999999999\r\nabc",
    "a long array": b"*1000000000\r\n",
    "a long array within": b"*2\r\n$1\r\na\r\n*1000000000\r\n",
    "deep arrays": b"*1\r\n" * 100_000,
    "wide arrays": b"*1000000\r\n" * 8,
    "a length of many digits": b"$" + b"9" * 10_000 + b"\r\n",
    "a number of many digits": b":" + b"9" * 100_000 + b"\r\n",
    "a negative length": b"$-5\r\n",
    "a line without end": b"+" + b"a" * 100_000,
    "a header without end": b"$" + b"1" * 100_000,
    "no number": b":1_0\r\n",
    "a wrong length": b"*2\r\n$3\r\nabcdef\r\n$1\r\na\r\n",
    "a push message": b">2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
    "a map": b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
    "a set of RESP3": b"~1\r\n$1\r\na\r\n",
    "a null of RESP3": b"_\r\n",
    "a response of HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a record of TLS": b"\x15\x03\x01\x00\x02\x02\x16",
    "more than was asked for": b"+OK\r\n+OK\r\n",
}


def feed_all(reader: ReplyReader, data: bytes) -> None:
    """Feed bytes in pieces of 1000."""
    for start in range(0, len(data), 1000):
        reader.feed(data[start : start + 1000])


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_cost_little_memory_and_raise(name: str) -> None:
    """A reader refuses what cannot be a reply, without a reserve for declared lengths."""
    data = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(BrokenReply) as raised:
            feed_all(ReplyReader(1, ROOM), data + b"\r\n" * 40_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * ROOM
    assert "abc" not in str(raised.value)


def test_an_endless_response_ends_at_its_limit() -> None:
    """A response of more bytes than its request allows is refused."""
    reader = ReplyReader(1, ROOM)
    with pytest.raises(BrokenReply, match="too large"):
        feed_all(reader, b"*500000\r\n" + b"$-1\r\n" * ROOM)


def test_a_large_value_in_small_pieces_costs_no_quadratic_time() -> None:
    """A value of 32 MB that arrives in 2,000 pieces is joined once."""
    size = 32 << 20
    reader = ReplyReader(1, 2 * size)
    reader.feed(b"$%d\r\n" % size)
    piece = bytes(1 << 14)
    began = time.process_time()
    for _ in range(size >> 14):
        reader.feed(piece)
    assert reader.feed(b"\r\n")
    assert len(reader.replies[0]) == size
    assert time.process_time() - began < 5


# --- whose response it is ------------------------------------------------------------------


def respond(pipeline: Pipeline, *replies: Any, number: bytes | None = None) -> list[Any]:
    """What a pipeline makes of replies, with its own number or another."""
    own = pipeline.data.rsplit(b"\r\n", 2)[1]
    return pipeline.check([*replies, own if number is None else number])


def test_the_response_to_another_request_is_refused() -> None:
    """Replies that do not end with the number of the request raise."""
    pipeline, other = Pipeline([("MGET", "a")]), Pipeline([("MGET", "b")])
    assert respond(pipeline, [b"1"]) == [[b"1"]]
    with pytest.raises(BrokenReply, match="another request"):
        respond(pipeline, [b"2"], number=other.data.rsplit(b"\r\n", 2)[1])


@pytest.mark.parametrize(
    ("command", "one", "two"),
    [
        (("MGET", "a", "b"), [b"1", b"2"], [None, b"3"]),
        (("EVALSHA", MERGE.sha, 2, "a", "b"), [1, 2], [0, 0]),
    ],
)
def test_replies_exchanged_within_one_response_are_refused(
    command: Command, one: Any, two: Any
) -> None:
    """A command of several keys has a number of its own, so its reply counts for no other one."""
    pipeline = Pipeline([command, command, ("GET", "c")])
    first, second, last = [data.split(b"\r\n")[2] for data in pipeline.data.split(b"ECHO")[1:]]
    replies = [one, first, two, second, None, last]
    assert pipeline.check(replies) == [one, two, None]
    with pytest.raises(BrokenReply, match="another request"):
        pipeline.check([two, second, one, first, None, last])


def test_commands_of_one_key_share_a_number() -> None:
    """The commands of a cluster, of one key each, are not doubled."""
    commands: list[Command] = [("GET", "a"), ("MGET", "b"), ("EVALSHA", MERGE.sha, 1, "c", "", "")]
    assert Pipeline(commands).data.count(b"ECHO") == 1


def test_a_refused_number_counts_if_all_was_refused() -> None:
    """A server that refuses everything, or the number alone by its ACL, is believed."""
    pipeline = Pipeline([("MGET", "a"), ("GET", "b")])
    loading, forbidden = ErrorReply("LOADING x"), ErrorReply("NOPERM x")
    assert pipeline.check([loading, loading, loading]) == [loading, loading]
    assert pipeline.check([[b"1"], None, forbidden]) == [[b"1"], None]
    with pytest.raises(BrokenReply):
        pipeline.check([[b"1"], None, loading])


MGET: Command = ("MGET", "a", "b")
MERGING: Command = ("EVALSHA", MERGE.sha, 2, "a", "b", *("",) * 6)
SLOTS: Command = ("CLUSTER", "SLOTS")
REPLICAS: Command = ("SENTINEL", "REPLICAS", "features")
PRIMARY: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "features")
NODE = [b"h", 1]

WELL_FORMED: list[tuple[Command, Any]] = [
    (MGET, [b"1", None]),
    (MGET, ErrorReply("ERR x")),
    (("GET", "a"), None),
    (("SET", "a", "b"), b"OK"),
    (("DEL", "a"), 1),
    (MERGING, [0, 4]),
    (with_text(MERGING), [1, 2]),
    (("EVALSHA", SWAP.sha, 1, "a"), 1),
    (("SCAN", "0"), [b"17", [b"a"]]),
    (("ZRANGEBYLEX", "a", "-", "+"), [b"a"]),
    (("WAITAOF", 1, 0, 5), [1, 0]),
    (("ROLE",), [b"master", 1, []]),
    (SLOTS, [[0, 16383, NODE]]),
    (PRIMARY, [b"127.0.0.1", b"6379"]),
    (REPLICAS, [[b"ip", b"::1", b"port", b"1"]]),
    (("PING",), {"unknown": "commands are not checked"}),
]

MALFORMED: list[tuple[Command, Any]] = [
    (MGET, [b"1"]),
    (MGET, [b"1", None, None]),
    (MGET, [b"1", 5]),
    (MGET, [b"1", [b"2"]]),
    (MGET, [b"1", ErrorReply("ERR x")]),
    (MGET, b"OK"),
    (MGET, None),
    (("GET", "a"), [b"1"]),
    (("SET", "a", "b"), None),
    (("DEL", "a"), b"1"),
    (MERGING, [0]),
    (MERGING, [0, 5]),
    (MERGING, [0, b"1"]),
    (with_text(MERGING), 1),
    (("EVALSHA", SWAP.sha, 1, "a"), [1]),
    (("SCAN", "0"), [b"17"]),
    (("SCAN", "0"), [b"x", []]),
    (("SCAN", "0"), [b"0", [[b"a"]]]),
    (("ZRANGEBYLEX", "a", "-", "+"), [None]),
    (("WAITAOF", 1, 0, 5), [1]),
    (("ROLE",), []),
    (SLOTS, [[0, 10**18, NODE]]),
    (SLOTS, [[0, 16383, NODE]] * 2),
    (SLOTS, [[0, 5, [b"\xff", 1]]]),
    (SLOTS, [[0, 5, [b"h", 70000]]]),
    (SLOTS, [[0, 5]]),
    (PRIMARY, [b"127.0.0.1", b"port"]),
    (PRIMARY, [b"127.0.0.1"]),
    (REPLICAS, [[b"ip", b"h"]]),
    (REPLICAS, [b"ip"]),
]


@pytest.mark.parametrize(("command", "reply"), WELL_FORMED)
def test_replies_of_the_right_form_pass(command: Command, reply: Any) -> None:
    """What servers reply is returned as it is."""
    assert respond(Pipeline([command]), reply) == [reply]


@pytest.mark.parametrize(("command", "reply"), MALFORMED)
def test_replies_of_another_form_are_refused(command: Command, reply: Any) -> None:
    """A reply whose count or types are not those of its command raises."""
    with pytest.raises(BrokenReply, match="another form"):
        respond(Pipeline([command]), reply)


@settings(deadline=None)
@given(st.binary() | st.text("{}ab").map(str.encode))
def test_slots_are_those_of_redis_py(key: bytes) -> None:
    """The slot of any key equals that of redis-py."""
    assert slot_of(key) == key_slot(key)


def test_scripts_are_named_once() -> None:
    """A command with a script's text is not given its text again."""
    command = with_text(MERGING)
    assert commands.names_script(MERGING)
    assert not commands.names_script(command)
    assert sys.getsizeof(command[1]) > 1000
