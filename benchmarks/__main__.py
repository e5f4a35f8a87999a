"""`python -m benchmarks [PART …]`: measure, print the tables, and keep them."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable

from benchmarks import (
    breakdown,
    caching,
    cpu,
    curves,
    e2e,
    ideas,
    instructions,
    memory,
    plots,
    report,
    results,
    tips,
    writing,
)
from benchmarks import bytes as weighing

ROUNDS = {"cpu": 15, "e2e": 20, "curves": 3, "caching": 15, "writing": 9}


def main() -> None:
    """Run the parts that are named, or all."""
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "bytes": weigh,
        "cpu": time_calls,
        "instructions": count_instructions,
        "e2e": time_single_calls,
        "curves": draw_curves,
        "memory": read_a_million_rows,
        "breakdown": take_apart,
        "tips": try_tips,
        "caching": cache,
        "writing": write,
        "report": lambda _: None,
    }
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(parts)}; or all")
    parser.add_argument("--rounds", type=int, help=f"samples of each, unless {ROUNDS}")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    parser.add_argument("--endpoint", help="for e2e: another engine's URL, instead of dynoxide")
    options = parser.parse_args()
    unknown = set(options.parts) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for name in options.parts or parts:
        started = time.monotonic()
        parts[name](options)
        print(f"\n{name}: {time.monotonic() - started:.0f} s\n", flush=True)
    publish()


def weigh(_: argparse.Namespace) -> None:
    """Bytes and capacity units, and what else would save some."""
    lines, saved = weighing.run(), ideas.savings()
    print(f"{weighing.setting()}\n\n{weighing.as_text(lines)}\n")
    print(f"What ideas save of ours\n\n{ideas.as_text(saved)}")
    weighing.save(lines, saved)


def time_calls(options: argparse.Namespace) -> None:
    """CPU of calls against the canned server."""
    rounds = options.rounds or ROUNDS["cpu"]
    found, versions = cpu.run(rounds=rounds, seed=options.seed)
    results.save("cpu", found, rounds=rounds, versions=versions)
    print(report.cpu(found))


def count_instructions(_: argparse.Namespace) -> None:
    """Instructions per call, compared with the committed counts."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: apt-get install valgrind")
        return
    counts = instructions.run()
    print(instructions.as_text(counts))
    more = instructions.compared(counts)
    instructions.save(counts)
    if more:
        raise SystemExit("\n".join(["More instructions than committed:", *more]))


def time_single_calls(options: argparse.Namespace) -> None:
    """Latency against a real engine."""
    rounds = options.rounds or ROUNDS["e2e"]
    found = e2e.run(rounds, options.seed, options.endpoint)
    results.save("e2e", found, rounds=rounds)
    print(report.e2e(found))


def draw_curves(options: argparse.Namespace) -> None:
    """How CPU grows."""
    rounds = options.rounds or ROUNDS["curves"]
    found = curves.run(rounds)
    results.save("curves", found, rounds=rounds)
    print(report.curves(found))


def read_a_million_rows(_: argparse.Namespace) -> None:
    """Whether memory stays flat."""
    found = memory.run()
    results.save("memory", found)
    print(report.memory(found))


def take_apart(_: argparse.Namespace) -> None:
    """What the parts of a call cost."""
    found = breakdown.run()
    results.save("breakdown", found)
    print(report.breakdown(found))


def try_tips(_: argparse.Namespace) -> None:
    """What tips are worth."""
    found = tips.run()
    results.save("tips", found)
    print(report.tips(found))


def cache(options: argparse.Namespace) -> None:
    """What caches and Bloom filters save and cost."""
    rounds = options.rounds or ROUNDS["caching"]
    found = caching.run(rounds, options.seed)
    results.save("caching", found, rounds=rounds, versions=caching.versions())
    for table in report.CACHING.values():
        print(f"{table(found)}\n")


def write(options: argparse.Namespace) -> None:
    """What persistence writers take."""
    rounds = options.rounds or ROUNDS["writing"]
    found, versions = writing.run(rounds, options.seed)
    results.save("writing", found, rounds=rounds, versions=versions)
    for table in report.WRITING.values():
        print(f"{table(found)}\n")


def publish() -> None:
    """Put what is kept into the documents and the images."""
    kept = results.load()
    results.update_documents(report.tables(kept))
    plots.draw(kept)


if __name__ == "__main__":
    main()
