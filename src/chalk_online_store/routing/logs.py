"""What a log says of regions: their names, states and the classes of errors, nothing else."""

from __future__ import annotations

import logging

from chalk_online_store.effects import Instant
from chalk_online_store.logs import event
from chalk_online_store.routing.health import RegionHealth
from chalk_online_store.routing.router import Router

logger = logging.getLogger("chalk_online_store.routing")


def log_change(router: Router, region: RegionHealth, now: Instant) -> None:
    """Log that a region has changed its state. Not to be called under the router's lock."""
    level = logging.INFO if region.well else logging.WARNING
    if not logger.isEnabledFor(level):
        return
    text = f"region {region.name} is {region.state}"
    if region.reason:
        text += f": {region.reason}"
    if not region.well:
        text += f"; reads go to {next(iter(router.to_read(now)), 'no region')}"
    said = event("region.state", region=region.name, state=str(region.state), reason=region.reason)
    logger.log(level, "%s", text, extra=said)


def log_replication(region: str, source: str, stopped: bool) -> None:
    """Log that a region has stopped receiving another one's writes, or receives them again."""
    said = event(
        "region.replication",
        region=region,
        source=source,
        state="stopped" if stopped else "running",
    )
    if stopped:
        logger.warning(
            "Replication from %s to %s has stopped; %s answers with old values and is used last. "
            "Run `chalk-online-store doctor`.",
            source,
            region,
            region,
            extra=said,
        )
    else:
        logger.info("Replication from %s to %s has resumed.", source, region, extra=said)
