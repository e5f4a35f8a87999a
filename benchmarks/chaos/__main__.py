"""`python -m benchmarks.chaos [SCENARIO …]`: run, check, and write down what was found."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from benchmarks.chaos import judge, kept
from benchmarks.chaos.run import run
from benchmarks.chaos.scenarios import SCENARIOS
from benchmarks.chaos.settings import QUICK, Pace


def main() -> None:
    """Run the scenarios that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="half as long, and nothing is kept")
    parser.add_argument("--publish", action="store_true", help="run nothing: page and image alone")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that engines are stopped.
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    if not options.publish:
        _run(
            options.scenarios or list(SCENARIOS), QUICK if options.quick else Pace(), options.quick
        )
    if not options.quick:
        kept.publish()


def _run(names: Sequence[str], pace: Pace, quick: bool) -> None:
    for name in names:
        started = time.monotonic()
        scenario = SCENARIOS[name]
        found = run(scenario, pace)
        lines = judge.lines(scenario, pace, found)
        print(f"{name}: {scenario.title} ({time.monotonic() - started:.0f} s)", flush=True)
        for line in lines:
            for promise, reached, seen in line["promises"]:
                what = "reached" if reached else "NOT REACHED"
                print(f"  {line['store']:5} {promise}: {what}, {seen}", flush=True)
        if not quick:
            kept.keep(scenario, pace, lines, judge.timeline(scenario, pace, found))


if __name__ == "__main__":
    main()
