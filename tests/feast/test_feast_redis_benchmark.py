"""The comparison with Feast's Redis store runs, and both stores read the same values."""

from __future__ import annotations

from benchmarks import feast_redis, report


def test_feasts_redis_store_and_ours_read_the_same_from_one_server() -> None:
    """One round of reads, which are checked, of writes and of memory, a line for each of them."""
    found = feast_redis.run(rounds=1, entities=2 * feast_redis.ROWS_A_WRITE)
    reads = [line for line in found if line["table"] == "reads"]
    assert {line["client"] for line in reads} == {kind.name for kind in feast_redis.COMPARED}
    assert all(line["cpu_us"] > 0 for line in found if "cpu_us" in line)
    usage = {line["store"]: line["usage"] for line in found if line.get("of") == feast_redis.MIXED}
    assert usage["OnlineStore.write"] < 0.5 * usage["Feast's Redis store"]
    for table in report.VALKEY.values():
        assert "Feast's Redis store" in table(found)
