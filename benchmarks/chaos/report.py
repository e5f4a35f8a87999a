"""What was kept, as the tables of a page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.chaos.promises import seconds
from benchmarks.table import as_table

Lines = Sequence[Mapping[str, Any]]
_WHEN = ("before", "during", "after")
_PERCENTILES = ("p50", "p99", "p999")


def tables(lines: Lines) -> dict[str, str]:
    """Every table, by the name of its markers."""
    return {
        "promises": promised(lines),
        "reads": calls(lines, "reads"),
        "writes": calls(lines, "writes"),
        "losses": losses(lines),
        "costs": costs(lines),
    }


def promised(lines: Lines) -> str:
    """Which promises were kept, store by store, and those that were not."""
    names = dict.fromkeys(name for line in lines for name, _, _ in line["promises"])
    body = [[name, *_kept(lines, name)] for name in names]
    return as_table(["promise", "runs", "reached", "not reached"], body, texts=1)


def _kept(lines: Lines, wanted: str) -> list[str]:
    found = [
        (f"{line['title']}, {line['store']}: {seen}", kept)
        for line in lines
        for name, kept, seen in line["promises"]
        if name == wanted
    ]
    broken = [where for where, kept in found if not kept]
    return [str(len(found)), str(len(found) - len(broken)), "; ".join(broken) or "none"]


def calls(lines: Lines, kind: str) -> str:
    """Failures, latencies and the way of the traffic."""
    head = ["fault", "store", "failed", *(f"{when}, ms" for when in _WHEN), "moved", "back"]
    return as_table(head, (_call_cells(line, line[kind]) for line in lines), texts=2)


def _call_cells(line: Mapping[str, Any], of: Mapping[str, Any]) -> list[str]:
    return [
        line["title"],
        line["store"],
        _errors(of),
        *(_latencies(of["latency"][when]) for when in _WHEN),
        *([seconds(of["moved"], "stayed"), _back(of)] if of["concerned"] else ["", ""]),
    ]


def _back(of: Mapping[str, Any]) -> str:
    """Nothing comes back that never left."""
    return "" if of["moved"] is None else seconds(of["returned"])


def _errors(of: Mapping[str, Any]) -> str:
    named = ", ".join(f"{count} {name}" for name, count in of["errors"].items())
    return f"{named} of {of['calls']:,}" if named else f"0 of {of['calls']:,}"


def _latencies(of: Mapping[str, float | None]) -> str:
    return " / ".join(_ms(of[name]) for name in _PERCENTILES)


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def losses(lines: Lines) -> str:
    """What became of acknowledged writes, and what reads said of replication."""
    head = ["fault", "store", "entities written", "not in the other region", "lost at the end"]
    head += ["regions differ", "behind, most, s"]
    return as_table(head, map(_loss_cells, lines), texts=2)


def _loss_cells(line: Mapping[str, Any]) -> list[str]:
    behind = [value for value in line["behind"].values() if value is not None]
    counts = [str(line[name]) for name in ("written", "away", "lost", "differing")]
    return [line["title"], line["store"], *counts, f"{max(behind):.1f}" if behind else ""]


def costs(lines: Lines) -> str:
    """Requests, hedges, connections and processor time."""
    head = ["fault", "store", "requests a call", "hedged reads, %", "failovers", "retries"]
    head += ["connections", "CPU us a call"]
    return as_table(head, map(_cost_cells, lines), texts=2)


def _cost_cells(line: Mapping[str, Any]) -> list[str]:
    hedges, reads, writes = line["hedges"], line["reads"], line["writes"]
    return [
        line["title"],
        line["store"],
        _three(line["requests_a_call"], "{:.2f}".format),
        f"{hedges['sent'] / hedges['of'] * 100:.1f}",
        str(reads["failovers"] + writes["failovers"]),
        str(reads["retries"] + writes["retries"]),
        _three(line["connections"], str),
        _three(line["cpu_us"], "{:.0f}".format),
    ]


def _three(of: Mapping[str, Any], text: Callable[[Any], str]) -> str:
    return " / ".join("-" if of[when] is None else text(of[when]) for when in _WHEN)
