"""Results to Markdown tables, for the terminal and for the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.clients import OURS
from benchmarks.curves import LINEAR, slopes
from benchmarks.table import as_table

Results = Sequence[Mapping[str, Any]]

SHORT = (
    "BatchGetItem 100 x 20",
    "GetItem 1 x 20",
    "BatchGetItem 50 x 200",
    "BatchWriteItem 25 x 20",
)
"""The workloads of the short table."""
_NOT_SHORT = ("floor", *OURS.values())


def tables(kept: Mapping[str, Any]) -> dict[str, str]:
    """Every table that can be made of what was kept, by the name of its markers."""
    makers = {
        "summary": ("cpu", summary),
        "cpu": ("cpu", cpu),
        "e2e": ("e2e", e2e),
        "curves": ("curves", curves),
        "memory": ("memory", memory),
        "footprint": ("cpu", footprint),
        "breakdown": ("breakdown", breakdown),
        "tips": ("tips", tips),
        "a key": ("curves", cost_of_a_key),
    }
    makers |= {name: ("caching", table) for name, table in CACHING.items()}
    makers |= {name: ("writing", table) for name, table in WRITING.items()}
    makers |= {name: ("feast-redis", table) for name, table in VALKEY.items()}
    return (
        {name: make(kept[part]["results"]) for name, (part, make) in makers.items() if part in kept}
        | _from_several(kept)
        | {f"{part} setting": setting(kept[part]["setting"]) for part in kept}
    )


def _from_several(kept: Mapping[str, Any]) -> dict[str, str]:
    parts = ("cpu", "feast-redis")
    if not kept.keys() >= set(parts):
        return {}
    return {"engines": engines(*(kept[part]["results"] for part in parts))}


def setting(of: Mapping[str, Any]) -> str:
    """What ran, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in of.get("versions", {}).items())
    rounds = f"; {of['rounds']} rounds" if "rounds" in of else ""
    return f"Python {of['python']} on {of['machine']}{rounds}{versions and ': '}{versions}."


def summary(results: Results) -> str:
    """How many times the store's CPU each client takes, workload by workload."""
    ratios = {(r["workload"], r["client"]): r["ratio_to_ours"] for r in results}
    clients = dict.fromkeys(r["client"] for r in results if r["client"] not in _NOT_SHORT)
    body = [
        [client, *(_times(ratios.get((workload, client))) for workload in SHORT)]
        for client in clients
        if not client.startswith(tuple(OURS.values()))
    ]
    return as_table(["client", *SHORT], body, texts=1)


def cpu(results: Results) -> str:
    """Everything, workload by workload, the fastest first."""
    head = ["workload", "client", "CPU us", "calls/s", "x ours", "quartiles"]
    order = list(dict.fromkeys(r["workload"] for r in results))
    ranked = sorted(results, key=lambda r: (order.index(r["workload"]), r["cpu_us"]))
    return as_table(head, map(_cpu_cells, ranked), texts=2)


def _cpu_cells(result: Mapping[str, Any]) -> list[str]:
    median, (low, high) = result["ratio_to_ours"], result["quartiles"]
    itself = result["client"] == result["compared_to"]
    return [
        result["workload"],
        result["client"],
        f"{result['cpu_us']:,.0f}",
        f"{result['calls_per_second']:,.0f}",
        "1" if itself else _times(median),
        "" if itself else f"{_times(low)}-{_times(high)}",
    ]


def e2e(results: Results) -> str:
    """Latency and CPU of single calls."""
    head = ["workload", "client", "p50 ms", "p99 ms", "CPU us"]
    body = (
        [
            r["workload"],
            r["client"],
            f"{r['p50_ms']:.2f}",
            f"{r['p99_ms']:.2f}",
            f"{r['cpu_us']:,.0f}",
        ]
        for r in results
    )
    return as_table(head, body, texts=2)


def curves(results: Results) -> str:
    """The slopes of the curves."""
    return as_table(["axis", "client", "slope", ""], map(_slope_cells, slopes(results)), texts=2)


def _slope_cells(found: tuple[str, str, float]) -> list[str]:
    axis, client, slope = found
    return [axis, client, f"{slope:.2f}", "" if slope <= LINEAR else "worse than linear"]


def footprint(results: Results) -> str:
    """The peak of each client's process, the smallest first."""
    peaks = {
        r["client"]: max(o["rss_mb"] for o in results if o["client"] == r["client"])
        for r in results
    }
    body = ([client, f"{mb:.0f}"] for client, mb in sorted(peaks.items(), key=lambda pair: pair[1]))
    return as_table(["client", "peak MB"], body, texts=1)


def memory(results: Results) -> str:
    """Peaks of memory."""
    head = ["client", "rows", "peak MB after 1 %", "at the end"]
    body = (
        [r["client"], f"{r['rows']:,}", f"{r['first_mb']:.1f}", f"{r['mb']:.1f}"] for r in results
    )
    return as_table(head, body, texts=1)


def breakdown(results: Results) -> str:
    """The parts of each call, in a column of its own."""
    names = list(dict.fromkeys(name for call in results for name in call["parts"]))
    body = [[name, *(_part(call["parts"].get(name)) for call in results)] for name in names]
    return as_table(["part", *(call["call"] for call in results)], body, texts=1)


def _part(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:,.1f}"


def tips(results: Results) -> str:
    """What each is worth."""
    head = ["tip", "CPU us per", "without", "with", "times less"]
    body = (
        [r["tip"], r["of"], f"{r['plain_us']:,.1f}", f"{r['better_us']:,.1f}", _times(r["ratio"])]
        for r in results
    )
    return as_table(head, body, texts=2)


def cost_of_a_key(results: Results) -> str:
    """CPU microseconds a key, by the size of a read."""
    sizes = sorted({r["size"] for r in results if r["axis"] == "keys"})
    clients = dict.fromkeys(r["client"] for r in results)
    found = {(r["client"], r["size"]): r["cpu_us"] for r in results if r["axis"] == "keys"}
    body = [[c, *(f"{found[c, size] / size:,.1f}" for size in sizes)] for c in clients]
    return as_table(["keys in a read", *(f"{size:,}" for size in sizes)], body, texts=1)


def caching_rcu(results: Results) -> str:
    """Read units, and what was saved of them."""
    head = [
        "with",
        "RCU",
        "RCU for refreshing",
        "saved",
        "cache hits",
        "Bloom skips",
        "false positives",
        "of absent keys' RCU, the filter saved",
        "CPU us per key",
    ]
    return as_table(head, map(_units_cells, _of("rcu", results)), texts=1)


def _units_cells(result: Mapping[str, Any]) -> list[str]:
    return [
        result["with"],
        f"{result['rcu']:,.0f}",
        f"{result['refreshing_rcu']:,.1f}",
        f"{result['saved']:.1%}",
        *(f"{result[name]:,}" for name in ("cache_hits", "bloom_skips", "false_positives")),
        f"{result['absent_saved']:.1%}" if "absent_saved" in result else "",
        f"{result['cpu_us']:.2f}",
    ]


def caching_paths(results: Results) -> str:
    """CPU of a key by path and size of the read."""
    lines = _of("paths", results)
    sizes = list(lines[0]["cpu_us"])
    body = [
        [r["path"], *(f"{r['cpu_us'][size]:.2f}" if size in r["cpu_us"] else "" for size in sizes)]
        for r in lines
    ]
    return as_table(["CPU us per key, in a read of", *sizes], body, texts=1)


def caching_bloom(results: Results) -> str:
    """Bloom filters of several libraries."""
    lines = _of("bloom", results)
    sizes = list(lines[0]["check_us"])
    heads = [head for size in sizes for head in (f"check of {size}", "x ours")]
    head = ["library", *heads, "adding", "false positives", "bits per key", "same bytes elsewhere"]
    body = [
        [
            r["library"],
            *_by_what(r["check_us"], r["check_ratio"]),
            f"{r['add_us']:.2f}",
            f"{r['false_positive_rate']:.2%}",
            f"{r['bits_a_key']:.1f}",
            r["same_bytes"],
        ]
        for r in lines
    ]
    return as_table(head, body, texts=1)


def caching_lru(results: Results) -> str:
    """LRU caches of several libraries."""
    head = ["library", "100 hits", "x ours", "80 hits, 20 misses", "x ours"]
    body = [[r["library"], *_by_what(r["look_us"], r["look_ratio"])] for r in _of("lru", results)]
    return as_table(head, body, texts=1)


def caching_window(results: Results) -> str:
    """How long a new entity was taken for absent by another process."""
    head = ["refresh, s", "p50, s", "p99, s", "most, s"]
    body = [
        [f"{r['refresh']:g}", *(f"{r[name]:.2f}" for name in ("p50", "p99", "most"))]
        for r in _of("window", results)
    ]
    return as_table(head, body, texts=0)


def _by_what(microseconds: Mapping[str, float], ratios: Mapping[str, float]) -> list[str]:
    pairs = ((f"{us:.2f}", _times(ratios[what])) for what, us in microseconds.items())
    return [cell for pair in pairs for cell in pair]


def _of(table: str, results: Results) -> Results:
    return [result for result in results if result["table"] == table]


CACHING = {
    "caching rcu": caching_rcu,
    "caching paths": caching_paths,
    "caching bloom": caching_bloom,
    "caching lru": caching_lru,
    "caching window": caching_window,
}
"""The tables of the part `caching`."""


def streams(results: Results) -> str:
    """What each client takes for a row of a stream, on each engine, the least first."""
    head = ["engine", "client", "CPU us per row", "rows/s", "x ours", "quartiles"]
    found = sorted((r for r in results if "engine" in r), key=lambda r: (r["engine"], r["cpu_us"]))
    body = [
        [
            r["engine"],
            r["client"],
            f"{r['cpu_us']:,.1f}",
            f"{r['rows_per_second']:,.0f}",
            _times(r["ratio_to_ours"]),
            f"{_times(r['quartiles'][0])}-{_times(r['quartiles'][1])}",
        ]
        for r in found
    ]
    return as_table(head, body, texts=2)


def handing_over(results: Results) -> str:
    """What a row takes to be handed over."""
    head = ["until it is", "p50 us", "p99 us", "p99.9 us", "rows/s", "CPU us per row"]
    body = [
        [
            r["what"],
            *(f"{r[name]:,.0f}" if name in r else "" for name in ("p50_us", "p99_us", "p999_us")),
            f"{r['rows_per_second']:,.0f}" if "rows_per_second" in r else "",
            f"{r['cpu_us']:,.0f}" if "cpu_us" in r else "",
        ]
        for r in results
        if "what" in r
    ]
    return as_table(head, body, texts=1)


WRITING = {"writing streams": streams, "writing handing over": handing_over}


def valkey_reads(results: Results) -> str:
    """Reads from one Valkey server, by size, the least CPU first."""
    head = ["entities", "client", "CPU us", "x ours", "quartiles", "server us", "p50 ms", "p99 ms"]
    found = sorted(_of("reads", results), key=lambda r: (-r["entities"], r["cpu_us"]))
    body = [[f"{r['entities']} x 20", r["client"], *_beside_ours(r), *_latency(r)] for r in found]
    return as_table(head, body, texts=2)


def _beside_ours(result: Mapping[str, Any]) -> list[str]:
    itself = result["client"] == result["compared_to"]
    low, high = map(_times, result["quartiles"])
    return [
        f"{result['cpu_us']:,.0f}",
        "1" if itself else _times(result["ratio_to_ours"]),
        "" if itself else f"{low}-{high}",
        f"{result['server_us']:,.0f}",
    ]


def _latency(result: Mapping[str, Any]) -> list[str]:
    """Of one call at a time: several at once wait for each other."""
    if result["at_once"] > 1:
        return ["", ""]
    return [f"{result[name]:.2f}" for name in ("p50_ms", "p99_ms")]


def valkey_writes(results: Results) -> str:
    """Rows into one Valkey server."""
    head = ["writer", "CPU us per row", "x ours", "quartiles", "server us", "rows/s"]
    body = [
        [r["client"], *_beside_ours(r), f"{r['rows_per_second']:,.0f}"]
        for r in _of("writes", results)
    ]
    return as_table(head, body, texts=1)


def valkey_memory(results: Results) -> str:
    """Bytes of an entity in one Valkey server."""
    head = ["entity", "store", "MEMORY USAGE", "used_memory grows by"]
    body = [
        [r["of"], r["store"], f"{r['usage']:,.0f}", f"{r['grown']:,.0f}"]
        for r in _of("memory", results)
    ]
    return as_table(head, body, texts=2)


def engines(dynamodb: Results, valkey: Results) -> str:
    """Reads as dictionaries on each engine: of a canned DynamoDB, and of a Valkey server."""
    head = ["read", "DynamoDB: CPU us", "Valkey: CPU us", "its server's", "p50 ms", "p99 ms"]
    on_dynamodb = {(r["workload"], r["client"]): r["cpu_us"] for r in dynamodb}
    on_valkey = {(r["entities"], r["client"]): r for r in _of("reads", valkey)}
    body = []
    for entities, workload in ((100, "BatchGetItem 100 x 20"), (1, "GetItem 1 x 20")):
        ours = on_valkey[entities, "OnlineStore"]
        cpu = f"{on_dynamodb[workload, 'OnlineStore']:,.0f}"
        numbers = [f"{ours[name]:,.0f}" for name in ("cpu_us", "server_us")]
        body.append([f"{entities} x 20", cpu, *numbers, *_latency(ours)])
    return as_table(head, body, texts=1)


VALKEY = {
    "valkey reads": valkey_reads,
    "valkey writes": valkey_writes,
    "valkey memory": valkey_memory,
}
"""The tables of `benchmarks.feast_redis`."""


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"
