"""What regions have acknowledged lately: for how long it is kept, and for whom."""

from __future__ import annotations

from chalk_online_store.writer.tickets import EncodedBatch, ReplayBuffer


def parcel(record: int, size: int = 10, **regions: float) -> EncodedBatch:
    found = EncodedBatch(0, b"x" * size)
    found.id = record
    found.regions.update(regions)
    return found


def test_a_parcel_is_kept_for_the_window() -> None:
    """It is let go of once it has been done for that long, and no sooner."""
    window = ReplayBuffer(90, 1000)
    first, second = parcel(1), parcel(2)
    window.add(first, 0)
    window.add(second, 50)
    assert window.expire(89) == []
    assert window.expire(91) == [first]
    assert window.expire(141) == [second]
    assert (window.bytes, window.shortened) == (0, 0)


def test_what_a_region_acknowledged_lately_is_found() -> None:
    """Parcels that others acknowledged, or that region long ago, are not among it."""
    window = ReplayBuffer(90, 1000)
    east, west, both = parcel(1, east=5), parcel(2, west=5), parcel(3, east=5, west=6)
    for one in (east, west, both):
        window.add(one, 6)
    assert window.acknowledged("east", 20) == [east, both]
    assert window.acknowledged("east", 96) == []


def test_memory_is_bounded() -> None:
    """Beyond it, the oldest are let go of too early, and that is counted."""
    window = ReplayBuffer(90, 100)
    found = [parcel(number, size=30) for number in range(5)]
    for one in found:
        window.add(one, 0)
    assert window.expire(1) == found[:2]
    assert (window.bytes, window.shortened) == (90, 2)


def test_what_a_region_is_owed_outlives_the_window() -> None:
    """It is kept until the region has it, however long that takes."""
    window = ReplayBuffer(90, 1000)
    one = parcel(1, east=0)
    window.add(one, 0)
    window.schedule_replay("east", [one])
    assert window.expire(1000) == []
    assert (window.regions_to_replay, window.pending_replay("east"), window.replay_backlog) == (
        ["east"],
        [one],
        1,
    )
    assert window.settled("east") == [one]
    assert (window.regions_to_replay, window.bytes) == ([], 0)


def test_a_parcel_with_several_reasons_is_let_go_of_once() -> None:
    """Written again, owed to two regions, and in the window: it goes with the last of these."""
    window = ReplayBuffer(90, 1000)
    one = parcel(1)
    window.add(one, 0)
    window.schedule_replay("east", [one])
    window.schedule_replay("west", [one])
    window.add(one, 10)
    assert window.bytes == 10
    assert window.settled("east") == []
    assert window.expire(95) == []
    assert window.expire(101) == []
    assert window.settled("west") == [one]
    assert window.bytes == 0


def test_what_is_new_is_told_once() -> None:
    """Whoever looks after regions hears of every parcel that is done, or written again, once."""
    window = ReplayBuffer(90, 1000)
    one = parcel(1)
    window.add(one, 0)
    assert window.fresh() == [one]
    assert window.fresh() == []
    window.add(one, 1)
    assert window.fresh() == [one]
