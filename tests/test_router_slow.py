"""A region that has become slow, and what its probes said before."""

from __future__ import annotations

import random

from chalk_online_store import Routing
from chalk_online_store.effects import Instant
from chalk_online_store.routing.router import Router


def overtaken_router() -> Router:
    """A router whose near region answered its last probe well and was overtaken since."""
    router = Router(["near", "far"], "near", Routing(), random.Random(1))
    router.probed("near", 0.001)
    router.probed("far", 0.070)
    for number in range(5):
        router.lost_hedge("near", 0, "GetItem", 0.08, now=0.8 + number / 20)
    return router


def test_a_probe_from_before_a_region_became_slow_does_not_keep_traffic_there() -> None:
    """Else a silent region that was near is asked until its next probe has failed."""
    router = overtaken_router()
    assert router.to_read(Instant(1.0, 0)) == ["far", "near"]


def test_a_slow_region_is_asked_again_when_it_is_still_nearer_than_the_others() -> None:
    """What probes take now is what counts: a far region is worse than a near slow one."""
    router = overtaken_router()
    router.probed("near", 0.02)
    assert router.to_read(Instant(1.2, 0)) == ["near", "far"]
    router.probed("near", 1.0)
    assert router.to_read(Instant(2.2, 0)) == ["far", "near"]
