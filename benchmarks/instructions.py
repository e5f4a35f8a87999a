"""Instructions per call, counted by callgrind: they do not depend on what else the machine does.

Calls run without sockets, against canned responses: what is counted is the library and its
interpreter. The counts are compared with the committed ones of the same interpreter; a call that
takes 2 % more than before fails the comparison.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = 20
TOLERANCE = 0.02
COMMITTED = Path(__file__).parent / "results" / "instructions.json"

REQUESTS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void stop(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def run() -> dict[str, int]:
    """Count each call in a child under callgrind. Raises `FileNotFoundError` without valgrind."""
    with tempfile.TemporaryDirectory() as place:
        library = Path(place) / "requests.so"
        compile_requests = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
        subprocess.run(compile_requests, input=REQUESTS, check=True, text=True)
        out = f"--callgrind-out-file={place}/out"
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", out]
        environment = os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
        child = [sys.executable, "-m", "benchmarks.instructions", str(library)]
        subprocess.run([*command, *child], check=True, env=environment, capture_output=True)
        return dict(map(_counted, sorted(Path(place).glob("out.*"))))


def _counted(dump: Path) -> tuple[str, int]:
    text = dump.read_text()
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    assert name is not None
    assert total is not None
    return name[1], int(total[1]) // CALLS


def interpreter() -> str:
    """Name what the counts depend on."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"


def compared(counts: dict[str, int]) -> list[str]:
    """Compare with the committed counts; return the calls that take more instructions now."""
    before = _committed().get(interpreter(), {})
    return [
        f"{name}: {count:,} instructions, {before[name]:,} before"
        for name, count in counts.items()
        if name in before and count > before[name] * (1 + TOLERANCE)
    ]


def save(counts: dict[str, int]) -> None:
    """Keep the counts beside those of other interpreters."""
    committed = _committed() | {interpreter(): counts}
    COMMITTED.write_text(json.dumps(committed, indent=2, sort_keys=True) + "\n")


def _committed() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]]
    found = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    return found


def as_text(counts: dict[str, int]) -> str:
    """Return the counts as lines."""
    width = max(map(len, counts))
    return "\n".join(f"{name:{width}} {count:>10,}" for name, count in counts.items())


# --- the child ------------------------------------------------------------------------------------


def calls() -> dict[str, Callable[[], Any]]:
    """Return the calls, each without sockets."""
    from benchmarks import canned
    from chalk_online_store.backend import Call
    from chalk_online_store.dynamodb.backend import DynamoDBBackend
    from chalk_online_store.dynamodb.messages import Response
    from chalk_online_store.effects import NOW, Instant, Operation
    from chalk_online_store.operations import read as reading
    from chalk_online_store.schema import LRUCache
    from chalk_online_store.tiers.cached_reads import CachedReads
    from chalk_online_store.tiers.lru import ItemCache

    bodies = {name: body.encode() for name, body in canned.answers().items()}
    now = Instant(1.0, 1_767_323_046_000_000)
    backend = DynamoDBBackend(canned.TABLE, canned.LAYOUT)
    names = tuple(canned.USER.by_name)
    numeric = [name for name in names if canned.USER.feature(name).type.name != "str"]
    plan = reading.plan_read(canned.CODEC, names, {}, False)

    def perform(operation: Operation[Any]) -> Any:
        answer: Any = None
        try:
            while True:
                effect: Any = operation.send(answer)
                answer = now
                if effect is not NOW:
                    answer = Response(200, {}, bodies[effect.request.operation])
        except StopIteration as stop:
            return stop.value

    def reader(through: Any, keys: list[int]) -> Callable[[], Any]:
        def read() -> Any:
            pks = canned.CODEC.partition_keys(keys)
            call = Call(1e9, as_of=now)
            return perform(reading.read(through, plan, keys, pks, call))

        return read

    many, one = reader(backend, list(range(100))), reader(backend, [0])
    cache = CachedReads(backend, ItemCache(LRUCache(1000)), 1.0)
    cached = reader(cache, list(range(100)))
    changes = canned.changes

    def write() -> Any:
        return perform(backend.replace(changes(25), Call(1e9, as_of=now)))

    return {
        "BatchGetItem 100 x 20, columns": lambda: many().to_dict(),
        "BatchGetItem 100 x 20, rows": lambda: many().to_pylist(),
        "BatchGetItem 100 x 20, matrix": lambda: many().matrix(numeric),
        "GetItem 1 x 20, columns": lambda: one().to_dict(),
        "cached 100 x 20, columns": lambda: cached().to_dict(),
        "cached 100 x 20, matrix": lambda: cached().matrix(numeric),
        "BatchWriteItem 25 x 20": write,
    }


def count(library: str) -> None:
    """Perform each call under callgrind, and dump its instructions."""
    requests = ctypes.CDLL(library)
    for name, call in calls().items():
        for _ in range(30):
            call()
        gc.collect()
        gc.disable()  # When the collector runs depends on all calls before.
        requests.start()
        for _ in range(CALLS):
            call()
        requests.stop(name.encode())
        gc.enable()


if __name__ == "__main__":
    count(sys.argv[1])
