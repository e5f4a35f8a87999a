"""Answers are read the same way however they arrive; requests are one well-formed message."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from httptools import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from chalk_online_store.dynamodb.http.exchange import (
    LARGEST_BODY,
    RequestIds,
    RequestWriter,
    ResponseReader,
)
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.dynamodb.signing import Credentials, Signer
from chalk_online_store.network.sockets import LARGEST_HEAD, BrokenResponse

BODY = b'{"Item":{"a":{"N":"1.5"}}}'


def with_length(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Amz-Crc32: 17\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n" + trailer + b"\r\n"


ANSWERS = {
    "with length": with_length(BODY),
    "empty": with_length(b""),
    "chunked": chunked(BODY, 7),
    "chunked, with a trailer": chunked(BODY, 26, b"X-Amz-Crc32: 1\r\n"),
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
    + with_length(BODY),
    "to be closed": b"HTTP/1.1 500 Oops\r\nconnection: CLOSE\r\ncontent-length: 2\r\n\r\n{}",
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
}
every_answer = pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS.keys())

BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "too long": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "upgrade": b"HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
}
every_broken_answer = pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())


@every_answer
def test_an_answer_is_whole_at_its_last_byte(data: bytes) -> None:
    """At every boundary but the last the answer is still to come, byte by byte or in two."""
    reader = ResponseReader()
    assert [reader.feed(data[i : i + 1]) for i in range(len(data) - 1)] == [None] * (len(data) - 1)
    expected = reader.feed(data[-1:])
    assert expected is not None
    for cut in range(1, len(data)):
        reader = ResponseReader()
        assert reader.feed(data[:cut]) is None
        assert reader.feed(data[cut:]) == expected


@given(st.data(), st.lists(st.sampled_from(list(ANSWERS.values())[:5]), min_size=1, max_size=4))
def test_any_split_gives_the_same_answers(draw: st.DataObject, answers: list[bytes]) -> None:
    """One reader reads the answers of a connection one by one, wherever they are cut."""
    reader = ResponseReader()
    for data in answers:
        cuts = draw.draw(st.sets(st.integers(1, len(data) - 1)))
        edges = [0, *sorted(cuts), len(data)]
        found = [reader.feed(memoryview(data)[a:b]) for a, b in pairwise(edges)]
        assert found[:-1] == [None] * len(cuts)
        assert found[-1] == whole(data)
        assert reader.reusable


@given(st.binary(max_size=5000), st.integers(1, 6000))
def test_bodies_come_out_as_they_went_in(body: bytes, size: int) -> None:
    """Any bytes, also those that look like HTTP, and chunks of any size."""
    assert whole(with_length(body)).body == body
    assert whole(chunked(body, size)).body == body


def test_what_is_told_of_an_answer() -> None:
    """Status, headers under names in lower case, and no header of an interim answer or trailer."""
    assert whole(ANSWERS["interim"]) == Response(
        200, {"content-length": "26", "x-amz-crc32": "17"}, BODY
    )
    assert whole(ANSWERS["chunked, with a trailer"]) == Response(
        400, {"transfer-encoding": "chunked"}, BODY
    )


@pytest.mark.parametrize("name", ["to be closed", "of HTTP/1.0"])
def test_an_announced_end_is_heard(name: str) -> None:
    """A connection that the engine will close cannot carry another request."""
    reader = ResponseReader()
    assert reader.feed(ANSWERS[name]) is not None
    assert not reader.reusable


@pytest.mark.parametrize("more", [with_length(b"2"), b"noise", b"HTTP/1.1 200 OK\r\n"])
def test_more_than_an_answer_spoils_the_connection(more: bytes) -> None:
    """The answer counts; what follows it unasked is never taken for the next one."""
    reader = ResponseReader()
    assert reader.feed(with_length(BODY) + more) == whole(with_length(BODY))
    assert not reader.reusable


@every_broken_answer
def test_a_broken_answer_is_refused_however_it_arrives(data: bytes) -> None:
    """At once or byte by byte, what cannot be accepted ends in our words, with no part of it."""
    for size in (len(data), 1):
        with pytest.raises(BrokenResponse, match=r"^the answer (is not HTTP|has no length|is too)"):
            feed_all(ResponseReader(), data, size)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * LARGEST_HEAD,
        b"HTTP/1.1 200 " + b"x" * LARGEST_HEAD,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (LARGEST_HEAD // 6 + 1),
    ],
    ids=["header", "status line", "headers"],
)
def test_a_head_does_not_grow_for_ever(data: bytes) -> None:
    """A head that has not ended after 64 KB is given up, not gathered until time is up."""
    with pytest.raises(BrokenResponse, match="too long"):
        feed_all(ResponseReader(), data, 1000)


def test_heads_of_many_answers_do_not_add_up() -> None:
    """The bound is one answer's: a connection that is kept for days goes on."""
    reader = ResponseReader()
    data = with_length(b"")
    for _ in range(2 * LARGEST_HEAD // len(data)):
        assert feed_all(reader, data, len(data) - 1) is not None


def test_chunks_do_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a body counts its chunks together."""
    monkeypatch.setattr("chalk_online_store.dynamodb.http.exchange.LARGEST_BODY", 20)
    with pytest.raises(BrokenResponse, match="too long"):
        feed_all(ResponseReader(), chunked(BODY, 5), 30)


@pytest.mark.parametrize(
    "more",
    [b"Name-%d: value\r\n", b"A: b\r\n", b" " * 500],
    ids=["trailers", "one trailer again and again", "one trailer that does not end"],
)
def test_trailers_do_not_grow_for_ever(more: bytes) -> None:
    """A chunked body whose trailers do not end is refused, however small its chunks were."""
    reader = ResponseReader()
    assert reader.feed(chunked(b"x" * 100, 10).removesuffix(b"\r\n") + b"T: ") is None
    with pytest.raises(BrokenResponse, match="too long"):
        feed_all(reader, b"".join(more % n if b"%" in more else more for n in range(2**14)), 1000)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_body_that_does_not_end_takes_bounded_memory(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound of a body counts the memory of its pieces, so tiny chunks reach it sooner."""
    limit = 2**20
    monkeypatch.setattr("chalk_online_store.dynamodb.http.exchange.LARGEST_BODY", limit)
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    tracemalloc.start()
    try:
        with pytest.raises(BrokenResponse, match="too long"):
            feed_again(reader, chunk * 10, limit)
        assert tracemalloc.get_traced_memory()[1] < 2 * limit
    finally:
        tracemalloc.stop()


def test_a_refused_body_is_not_kept() -> None:
    """The pieces of a body that is too long are released at once, and not with the exception."""
    reader = ResponseReader()
    piece = b" " * 2**20
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    tracemalloc.start()
    try:
        with pytest.raises(BrokenResponse, match="too long"):
            feed_again(reader, chunk, LARGEST_BODY // len(piece) + 1)
        assert tracemalloc.get_traced_memory()[0] < LARGEST_BODY // 10
    finally:
        tracemalloc.stop()


def test_a_declared_length_above_the_bound_is_refused_at_its_head() -> None:
    """Nothing of a body is collected if its declared length is too long."""
    reader = ResponseReader()
    with pytest.raises(BrokenResponse, match="too long"):
        reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LARGEST_BODY + 1))
    assert not reader.reusable


def test_the_largest_batch_of_dynamodb_is_accepted() -> None:
    """A response of 16 MB of binary items, with base64, is below the bound."""
    assert LARGEST_BODY > 16 * 2**20 * 4 / 3 * 1.5


@given(st.binary(max_size=300), st.integers(1, 300))
def test_noise_is_refused_or_awaited(noise: bytes, size: int) -> None:
    """Whatever bytes arrive, the reader raises nothing but its own error."""
    with suppress(BrokenResponse):
        feed_all(ResponseReader(), b"HTTP/1.1 200 OK\r\n" + noise, size)


@given(
    body=st.binary(max_size=2000), token=st.none() | st.from_regex("[!-~]{1,50}", fullmatch=True)
)
def test_a_request_is_one_message(body: bytes, token: str | None) -> None:
    """Another parser finds one POST to "/", with the body as it was and each header once."""
    signer = Signer("us-east-1", "https://dynamodb.us-east-1.amazonaws.com")
    credentials = Credentials("AKID", "secret", token)
    seen = SeenRequest()
    seen.parser.feed_data(RequestWriter(signer).write(Request("GetItem", body), credentials))
    assert seen.complete == 1
    assert seen.parser.get_method() == b"POST"
    assert seen.url == b"/"
    assert seen.body == body
    names = [name.lower() for name, _ in seen.headers]
    assert len(set(names)) == len(names) == (8 if token is None else 9)
    assert dict(seen.headers)[b"Host"] == signer.host.encode()


class SeenRequest:
    """What a server's parser finds."""

    def __init__(self) -> None:
        self.parser = HttpRequestParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = self.body = b""
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def whole(data: bytes) -> Response:
    answer = ResponseReader().feed(data)
    assert answer is not None
    return answer


def feed_all(reader: ResponseReader, data: bytes, size: int) -> Response | None:
    answer = None
    for start in range(0, len(data), size):
        answer = reader.feed(data[start : start + size])
    return answer


def feed_again(reader: ResponseReader, data: bytes, times: int) -> None:
    for _ in range(times):
        reader.feed(data)


def with_request_id(request_id: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nx-amzn-RequestId: %b\r\nContent-Length: 2\r\n\r\n{}" % (
        request_id.encode()
    )


def test_an_answer_that_comes_twice_is_refused() -> None:
    """An answer with the request id of the one before ends the connection, if ids ever differ."""
    reader = ResponseReader()
    for request_id in ("A", "B", "A"):
        assert reader.feed(with_request_id(request_id)) is not None
    with pytest.raises(BrokenResponse, match="sent before"):
        reader.feed(with_request_id("A"))
    assert not reader.reusable
    for answer in (with_length(BODY), with_request_id("A")):
        reader = ResponseReader()
        for _ in range(3):  # An engine without ids, and a fake that gives all the same one.
            assert reader.feed(answer) is not None


def test_what_is_known_of_request_ids_holds_for_all_connections() -> None:
    """A new connection to an endpoint whose ids differ refuses the first one that is repeated."""
    ids = RequestIds()
    for request_id in ("A", "B"):
        ResponseReader(ids).feed(with_request_id(request_id))
    reader = ResponseReader(ids)
    for request_id in ("C", "D"):
        assert reader.feed(with_request_id(request_id)) is not None
    reader = ResponseReader(ids)
    assert reader.feed(with_request_id("E")) is not None
    with pytest.raises(BrokenResponse, match="sent before"):
        reader.feed(with_request_id("E"))
