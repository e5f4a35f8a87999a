"""Features that a process does not know yet survive its whole writes, however large the group."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalk_online_store import Feature, Namespace, OnlineStore
from chalk_online_store.testing import Dynoxide

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("features", [3, 600])
def test_a_feature_written_during_the_exact_way_survives_later_whole_writes(
    dynoxide: Dynoxide, table: str, features: int
) -> None:
    """A newer schema writes a feature between the refusal and the exact write of an older one."""
    known = [Feature(f"f{number}", int) for number in range(features)]
    older, newer = (
        Namespace("user", int, known),
        Namespace("user", int, [*known, Feature("c", int)]),
    )
    url = dynoxide.url(table)

    def at(second: int) -> datetime:
        return T0 + timedelta(seconds=second)

    def whole(value: int) -> list[dict[str, Any]]:
        return [{"id": 1} | {each.name: value for each in known}]

    with OnlineStore.open(url, [older]) as old, OnlineStore.open(url, [newer]) as new:
        old.write(older, whole(1), observed_at=at(10))
        new.write(newer, [{"id": 1, "f0": 2}], observed_at=at(12))
        transport = old.driver.transports[""]
        send, operations = transport.send, []

        def send_late(request: Any, timeout: float) -> Any:
            operations.append(request.operation)
            if len(operations) == 2:  # The first one was refused.
                new.write(newer, [{"id": 1, "c": 7}], observed_at=at(11))
            return send(request, timeout)

        transport.send = send_late  # type: ignore[method-assign]
        old.write(older, whole(3), observed_at=at(20))
        assert len(operations) >= 2
        old.write(older, whole(4), observed_at=at(30))
        row = new.read(newer, [1], consistent=True)[0]
        assert (row["c"], row["f0"]) == (7, 4)
        assert row.observed_at("c") == at(11)
        assert row.observed_at("f0") == at(30)
