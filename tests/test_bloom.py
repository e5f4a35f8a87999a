"""The Bloom filter: no false negative, the promised rate, the same everywhere, stored safely."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybloom_live import BloomFilter as Reference
from xxhash import xxh3_64_intdigest

from chalk_online_store import BloomFilter, DamagedItem, InvalidSchema
from chalk_online_store.codec.layout import ItemKey, TableLayout
from chalk_online_store.tiers.filter import segments
from chalk_online_store.tiers.filter.bloom import KeyFilter, Layer, blocks_for, hash_keys, sizes_for

MILLION = 1_000_000
LAYOUT = TableLayout()


def keys_of(prefix: str, count: int) -> list[str]:
    return [f"{prefix}:{number}" for number in range(count)]


def filter_of(keys: Sequence[str], expected: int, rate: float = 0.01) -> KeyFilter:
    known = KeyFilter.sized(expected, rate)
    known.add(hash_keys(keys))
    return known


@pytest.mark.parametrize("rate", [0.05, 0.01, 0.001])
def test_the_rate_at_a_million_keys(rate: float) -> None:
    """Of a million absent keys, the share let through is within a tenth of the target."""
    known = filter_of(keys_of("a", MILLION), MILLION, rate)
    passed = known.contains(hash_keys(keys_of("b", MILLION))).mean()
    assert 0.9 * rate < passed < 1.1 * rate
    bits, estimated = known.measure()
    assert estimated == pytest.approx(passed, rel=0.1)
    assert 0 < bits < known.nbytes * 8


def test_the_rate_is_that_of_the_reference() -> None:
    """At the same target, pybloom-live lets as many absent keys through, and knows the same."""
    keys, absent = keys_of("a", 20_000), keys_of("b", 100_000)
    known, reference = filter_of(keys, 20_000), Reference(20_000, 0.01)
    for key in keys:
        reference.add(key)
    assert all(known.might_contain(keys))
    assert all(key in reference for key in keys)
    ours = sum(known.might_contain(absent)) / len(absent)
    theirs = sum(key in reference for key in absent) / len(absent)
    assert ours == pytest.approx(theirs, rel=0.2)


@given(st.lists(st.text(max_size=20)), st.lists(st.text(max_size=20)))
def test_no_false_negative(keys: list[str], others: list[str]) -> None:
    """Whatever was added is there, however small the filter was meant to be."""
    known = KeyFilter.sized(3, 0.01)
    for start in range(0, len(keys), 7):
        known.add(hash_keys(keys[start : start + 7]))
    assert all(known.might_contain(keys))
    assert known.might_contain([*others, *keys])[len(others) :] == [True] * len(keys)


@given(st.lists(st.text(), min_size=1, max_size=40))
def test_one_by_one_is_as_all_at_once(keys: list[str]) -> None:
    """A check of few keys, in Python, answers as the check of many by numpy."""
    known = filter_of(keys_of("a", 500), 500, 0.3)
    known.add(hash_keys(keys[::2]))
    assert [known.might_contain([key])[0] for key in keys] == known.contains(
        hash_keys(keys)
    ).tolist()


def test_a_full_filter_grows() -> None:
    """With ten times the keys it was meant for, its rate is still at most twice the target."""
    known = KeyFilter.sized(2_000, 0.01)
    keys = keys_of("a", 20_000)
    for start in range(0, 20_000, 100):
        known.add(hash_keys(keys[start : start + 100]))
    assert len(known.layers) == 4
    assert all(known.might_contain(keys))
    assert sum(known.might_contain(keys_of("b", 50_000))) / 50_000 < 0.02


def test_a_batch_across_layers_is_spread_evenly() -> None:
    """However many keys are added at once, no layer gets more of some blocks than of others."""
    known = filter_of(keys_of("a", 20_000), 2_000)
    assert sum(known.might_contain(keys_of("b", 50_000))) / 50_000 < 0.02


def test_count_is_of_different_keys() -> None:
    """Keys that are added again, also within a batch, do not fill the filter."""
    known = filter_of(keys_of("a", 1_000) * 2, 1_000, 1e-6)
    known.add(hash_keys(keys_of("a", 1_000)))
    assert known.count == 1_000
    assert len(known.layers) == 1


def test_the_hash_is_the_same_for_ever() -> None:
    """Hashes and bits are those that tables hold already."""
    assert hash_keys(["a:1", "ü"]).tolist() == [
        xxh3_64_intdigest(b"a:1"),
        xxh3_64_intdigest("ü".encode()),
    ]
    assert int(hash_keys(["a:1"])[0]) == 0x5DC317CE993BF219
    layer = Layer(sizes_for(100, 0.01)[0])
    layer.add(hash_keys(keys_of("a", 100)))
    assert blocks_for(100, 0.01) == 5
    assert xxh3_64_intdigest(layer.content()) == 0x16B62359E58CCB06


def test_what_threads_see_while_keys_are_added() -> None:
    """A layer that grows while others check never loses a key."""
    known = KeyFilter.sized(100, 0.01)
    for number, key in enumerate(keys_of("a", 2_000)):
        known.add(hash_keys([key]))
        if number % 97 == 0:
            assert all(known.might_contain(keys_of("a", number + 1)))


@pytest.mark.parametrize(
    "options",
    [
        {"expected_entities": 0},
        {"expected_entities": 1, "target_false_positive_rate": 0},
        {"expected_entities": 1, "target_false_positive_rate": 0.9},
        {"expected_entities": 1, "refresh": "0s"},
        {"expected_entities": 1, "refresh": "infinity"},
        {"expected_entities": 1, "partitions": 0},
    ],
)
def test_a_filter_that_nobody_can_mean_is_refused(options: dict[str, object]) -> None:
    """What is out of range is refused where it is declared."""
    with pytest.raises(InvalidSchema):
        BloomFilter(**options)  # type: ignore[arg-type]


# --- the stored form -----------------------------------------------------------------------

PLACES = segments.FilterKeys("a")
SEGMENT = segments.Segment(7, 3, hash_keys(keys_of("a", 10)))


def test_a_segment_comes_back() -> None:
    """Hashes, and where the filter has them, come back."""
    key = PLACES.segment("us-east-1/0", 7)
    item = segments.seal_segment(LAYOUT, key, SEGMENT)
    again = segments.unseal_segment(item, key)
    assert again[:2] == (7, 3)
    assert again.hashes.tolist() == SEGMENT.hashes.tolist()


@given(st.data())
def test_any_damage_to_a_segment_is_seen(data: st.DataObject) -> None:
    """A segment in which any bit is another is refused."""
    key = PLACES.segment("s", 1)
    item = segments.seal_segment(LAYOUT, key, SEGMENT)
    stored = bytearray(base64.b64decode(item["b"][6:-2]))
    place = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[place // 8] ^= 1 << place % 8
    damaged = {**item, "b": b'{"B":"%b"}' % base64.b64encode(stored)}
    with pytest.raises(DamagedItem):
        segments.unseal_segment(damaged, key)


@pytest.mark.parametrize(
    "foreign",
    [
        segments.FilterKeys("b").segment("s", 1),
        PLACES.segment("t", 1),
        PLACES.segment("s", 2),
        ItemKey("x", "y"),
    ],
)
def test_a_segment_of_another_place_is_refused(foreign: ItemKey) -> None:
    """A segment of another namespace, stream or number is as good as damaged."""
    item = segments.seal_segment(LAYOUT, foreign, SEGMENT)
    with pytest.raises(DamagedItem):
        segments.unseal_segment(item, PLACES.segment("s", 1))


@pytest.mark.parametrize("attribute", [None, b'{"B":"?"}', b'{"S":"text"}', b'{"B":""}', b"{"])
def test_what_is_no_segment_at_all_is_refused(attribute: bytes | None) -> None:
    """Anything else under a segment's key is refused, whatever it is."""
    key = PLACES.segment("s", 1)
    item = segments.seal_segment(LAYOUT, key, SEGMENT)
    item = {name: value for name, value in item.items() if name != "b"}
    if attribute is not None:
        item = {**item, "b": attribute}
    with pytest.raises(DamagedItem):
        segments.unseal_segment(item, key)


def test_a_later_version_is_refused_as_such() -> None:
    """What a later version of the library stores is not taken for damage."""
    key = PLACES.segment("s", 1)
    later = b'{"B":"%b"}' % base64.b64encode(b"\x02" + bytes(20))
    with pytest.raises(DamagedItem, match="another version"):
        segments.unseal_segment({**segments.seal_segment(LAYOUT, key, SEGMENT), "b": later}, key)


def snapshot_of(known: KeyFilter) -> tuple[segments.Head, list[list[bytes]]]:
    """A filter as a head, and the chunks of its layers."""
    contents = [layer.content() for layer in known.layers]
    infos = tuple(
        segments.describe(layer, content, str(number))
        for number, (layer, content) in enumerate(zip(known.layers, contents, strict=True))
    )
    head = segments.Head(1, known.sizes, infos, {}, {}, {}, 0, 1)
    return head, [list(segments.chunks_of(content)) for content in contents]


def test_a_snapshot_comes_back() -> None:
    """A filter of several layers, cut into chunks, is the same filter afterwards."""
    known = filter_of(keys_of("a", 600_000), 300_000)
    head, chunks = snapshot_of(known)
    assert [info.chunks for info in head.layers] == [len(some) for some in chunks] == [2, 4]
    again = segments.restore(head, chunks)
    probe = hash_keys(keys_of("a", 100) + keys_of("b", 10_000))
    assert np.array_equal(again.contains(probe), known.contains(probe))
    assert (again.count, again.nbytes) == (known.count, known.nbytes)


def test_a_snapshot_with_a_wrong_chunk_is_refused() -> None:
    """Chunks in another order, or of another snapshot, are refused."""
    head, ((first, second, third),) = snapshot_of(filter_of(keys_of("a", 600_000), 600_000))
    for wrong in ([second, first, third], [first, second], [first, second, third, third]):
        with pytest.raises(DamagedItem):
            segments.restore(head, [wrong])


@given(st.lists(st.text(max_size=5)), st.lists(st.text(max_size=5)), st.randoms())
def test_what_one_takes_for_known_all_do(
    keys: list[str], others: list[str], rng: random.Random
) -> None:
    """Who learns the same segments, in whatever order, has the same false positives."""
    writer, reader = KeyFilter.sized(3, 0.3), KeyFilter.sized(3, 0.3)
    published = []
    for start in range(0, len(keys), 4):
        hashes = hash_keys(keys[start : start + 4])
        for layer, new in writer.parts(hashes[~writer.contains(hashes)]):
            published.append((layer, new))
            writer.add_to(layer, new)
    rng.shuffle(published)
    for layer, new in published:
        reader.add_to(layer, new)
    probe = hash_keys([*keys, *others])
    assert np.array_equal(reader.contains(probe), writer.contains(probe))
    assert reader.contains(hash_keys(keys)).all()
