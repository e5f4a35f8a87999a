"""A process whose writers are killed: `python -m tests.crashing URL SPOOL`.

It imports everything once, and forks for each line of its input, which says `SEED VERSION WCU`:
the fork writes rows of ever newer versions, and prints for each submission that is durable what
was in it. Whoever reads that kills it.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from datetime import UTC, datetime, timedelta

import boto3  # noqa: F401 (before the forks, which then need not)

from chalk_online_store import OnlineStore, PersistenceWriter, Ticket, Writing, features

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = 40


@features
class User:
    id: int
    version: int
    text: str
    blob: bytes


def row(key: int, version: int) -> dict[str, object]:
    """A row in which every feature tells the version."""
    return {"id": key, "version": version, "text": f"v{version}", "blob": b"%d" % version * 50}


def moment(version: int) -> datetime:
    """When a version was true."""
    return EPOCH + timedelta(microseconds=version)


def work(url: str, spool: str, seed: int, version: int, wcu: float) -> None:
    """Write until somebody kills this process."""
    rng = random.Random(seed)
    store = OnlineStore.open(url, [User])
    settings = Writing(wcu_per_second=wcu or None, max_batch_age="2ms")
    writer = PersistenceWriter(store, settings, spool=spool)
    say("begun")
    while True:
        keys = rng.sample(range(KEYS), rng.randrange(1, 12))
        rows = [row(key, version + place) for place, key in enumerate(keys)]
        times = [moment(version + place) for place in range(len(keys))]
        ticket = writer.submit(User, rows, times)
        text = " ".join(f"{key}:{version + place}" for place, key in enumerate(keys))
        version += len(keys)
        if rng.random() < 0.5:
            tell(ticket, text)
        else:
            threading.Thread(target=tell, args=(ticket, text), daemon=True).start()


def tell(ticket: Ticket, text: str) -> None:
    """Say what a submission has, once it is durable."""
    ticket.wait("durable", timeout=60)
    say(text)


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def main(url: str, spool: str) -> None:
    for line in sys.stdin:
        seed, version, wcu = line.split()
        child = os.fork()
        if not child:
            work(url, spool, int(seed), int(version), float(wcu))
        say(f"pid {child}")
        _, status = os.waitpid(child, 0)
        say(f"end {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
