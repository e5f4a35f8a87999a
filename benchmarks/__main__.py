"""`python -m benchmarks`: measure, and print the table."""

from __future__ import annotations

import argparse
import time

from benchmarks.report import as_text, setting
from benchmarks.run import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="samples of each (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    options = parser.parse_args()
    started = time.monotonic()
    results = run(options.rounds, options.seed)
    print(setting())
    print(f"{options.rounds} rounds in {time.monotonic() - started:.0f} s; median (quartiles)\n")
    print(as_text(results))


if __name__ == "__main__":
    main()
