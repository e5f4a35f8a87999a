"""Reading a million rows in chunks: the peak of memory must be flat."""

from __future__ import annotations

from typing import Any

from benchmarks.crew import cores, crew
from benchmarks.server import CannedServer

CLIENTS = ("OnlineStore", "AsyncOnlineStore")
CHUNK = 1_000
CHUNKS = 1_000
FEATURES = 20


def run(chunks: int = CHUNKS, chunk: int = CHUNK) -> list[dict[str, Any]]:
    """Peak MB after the first hundredth of the rows, and after all."""
    client_core, server_core = cores()
    with (
        CannedServer(core=server_core) as server,
        crew(CLIENTS, server.url, client_core) as workers,
    ):
        results = []
        for worker in workers:
            worker.do("fill", features=FEATURES)
            peaks = worker.do("scan", features=FEATURES, chunk=chunk, chunks=chunks)["rss_mb"]
            first, last = peaks[0], peaks[-1]
            rows = chunk * chunks
            results.append({"client": worker.client, "rows": rows, "first_mb": first, "mb": last})
        return results
