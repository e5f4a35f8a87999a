"""`python -m benchmarks.chaos [SCENARIO …]`: run, check, and write down what was found."""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

from benchmarks.chaos.run import run
from benchmarks.chaos.scenarios import SCENARIOS
from benchmarks.chaos.settings import QUICK, Pace

if __name__ == "__main__":
    for n in sys.argv[1:]:
        found = run(SCENARIOS[n], Pace())
        Path(f"/tmp/x6/chaos-{n}.pickle").write_bytes(pickle.dumps(found))
