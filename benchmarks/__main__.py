"""`python -m benchmarks [bytes|cpu]`: measure, and print the tables."""

from __future__ import annotations

import argparse
import time

from benchmarks import bytes as weighing
from benchmarks import ideas
from benchmarks.report import as_text, setting
from benchmarks.run import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["bytes", "cpu"], help="default: both")
    parser.add_argument("--rounds", type=int, default=30, help="samples of each (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    options = parser.parse_args()
    if options.what in (None, "bytes"):
        weigh()
    if options.what in (None, "cpu"):
        time_calls(options.rounds, options.seed)


def weigh() -> None:
    """Print and keep bytes and capacity units, and what else would save some."""
    results, saved = weighing.run(), ideas.savings()
    print(f"{weighing.setting()}\n\n{weighing.as_text(results)}\n")
    print(f"What ideas save of ours\n\n{ideas.as_text(saved)}\n")
    weighing.save(results, saved)


def time_calls(rounds: int, seed: int) -> None:
    """Print the CPU time of calls."""
    started = time.monotonic()
    results = run(rounds, seed)
    print(setting())
    print(f"{rounds} rounds in {time.monotonic() - started:.0f} s; median (quartiles)\n")
    print(as_text(results))


if __name__ == "__main__":
    main()
