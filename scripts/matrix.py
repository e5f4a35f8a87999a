"""Test other Pythons, other dependencies and every engine, and print one table of what came of it.

A row is an environment and the tests that run in it. An environment is made in `.try` from the
built wheel; the rows of engines use the environment that runs this script. A Python or a package
that cannot be had on this machine makes its row "not available", which is not a failure.

Usage: `python -m scripts.matrix [--lock] [ROW ...]`. A ROW is the beginning of a row's name, such
as `engine` or `"python 3.12"`. The exit status is 1 if a test failed or an environment could not
be used. `--lock` writes `tests/constraints/locked.txt` instead: the newest versions of today.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from chalk_online_store.testing.engines import find_dynoxide, find_ministack

ROOT = Path(__file__).parents[1]
WHERE = ROOT / ".try"
LOCKED = ROOT / "tests" / "constraints" / "locked.txt"
WORKERS = os.environ.get("WORKERS", "4")

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t")
OLDEST = PYTHONS[0]
TABLES = ("arrow", "cli", "demo", "testing")
EXTRAS = ("aioboto3", "arrow", "chalkpy", "cli", "demo", "otel", "plots", "testing")

# What depends on the Python or on a dependency.
QUICK = [
    "arrays",
    "arrow_rows",
    "chalkpy",
    "cli_tree",
    "credentials",
    "decoder",
    "frames",
    "golden",
    "http",
    "ids",
    "instances",
    "nested",
    "opentelemetry",
    "rows",
    "signing",
    "spool",
    "values",
]
CONTRACT = ("tests/contract", *(f"tests/test_{name}.py" for name in QUICK))
FRAMES = ("tests/test_frames.py", "tests/test_exact_tables.py", "tests/test_arrow_rows.py")
FEAST = ("tests/feast",)
ENGINES = ("dynoxide", "moto", "ministack", "sqlite", "valkey", "redis")


class NotAvailable(Exception):
    """A row cannot be run on this machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is tested with what.

    `python` is a version, or "" for the Python that runs this. `dependencies` is `lowest`,
    `locked` or `newest`, or "" for the environment that runs this. `packages` are requirements
    that an environment of its own has as well.
    """

    name: str
    tests: Sequence[str]
    python: str = ""
    dependencies: str = ""
    packages: Sequence[str] = ()
    extras: Sequence[str] = EXTRAS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a row."""

    verdict: str
    tests: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


ROWS = [
    *(Row(f"engine {name}", ("tests/contract", "-k", name)) for name in ENGINES),
    *(Row(f"python {v}", CONTRACT, python=v, dependencies="locked") for v in PYTHONS),
    Row("dependencies lowest", CONTRACT, python=OLDEST, dependencies="lowest"),
    Row("dependencies locked", CONTRACT, dependencies="locked"),
    Row("dependencies newest", CONTRACT, dependencies="newest"),
    # Feast keeps pandas below 3, also in the environment of `make test`.
    Row("pandas 2", FRAMES, "", "newest", ["pandas<3"], TABLES),
    Row("pandas newest", FRAMES, "", "newest", ["pandas>=3"], TABLES),
    Row("pandas lowest", FRAMES, OLDEST, "lowest", ["polars==1.34.*"], TABLES),
    Row("feast lowest", FEAST, "", "lowest", extras=("arrow", "feast", "testing")),
    Row("feast newest", FEAST, "", "newest", extras=("arrow", "feast", "testing")),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", action="store_true")
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    if options.lock:
        return compile_versions(LOCKED, sys.executable, EXTRAS, "--universal")
    rows = [row for row in ROWS if row.name.startswith(tuple(options.rows or [""]))]
    if not rows:
        raise SystemExit(f"No row begins like this. Rows: {', '.join(row.name for row in ROWS)}.")
    outcomes = [outcome_of(row) for row in rows]
    print_table(rows, outcomes)
    raise SystemExit(any(outcome.verdict == "failed" for outcome in outcomes))


def outcome_of(row: Row) -> Outcome:
    """Make a row's environment and run its tests there."""
    print(f"--- {row.name}", flush=True)
    began = time.monotonic()
    home = WHERE / row.name.replace(" ", "-")
    home.mkdir(parents=True, exist_ok=True)
    try:
        python = make_environment(row, home) if row.dependencies else sys.executable
    except NotAvailable as reason:
        print(reason, flush=True)
        return Outcome("not available")
    report = home / "report.xml"
    report.unlink(missing_ok=True)
    status = run_tests(python, [*row.tests, f"--junit-xml={report}"])
    return read_report(report, status, time.monotonic() - began)


def make_environment(row: Row, home: Path) -> str:
    """Install the wheel, with its extras and what the tests need, into a virtual environment."""
    found = find_python(row.python)
    uv("venv", "--clear", "--python", found, str(home / "venv"))
    python = str(home / "venv" / "bin" / "python")
    wheel = build_wheel(home, python)
    constraints: list[str] = []
    if row.dependencies == "lowest":
        lowest = home / "lowest.txt"
        compile_versions(lowest, python, row.extras, "--resolution", "lowest-direct")
        constraints = ["--constraint", str(lowest)]
    elif row.dependencies == "locked":
        constraints = ["--constraint", str(LOCKED)]
    group = ["--group", f"{ROOT / 'pyproject.toml'}:tests"]
    what = f"{wheel}[{','.join(row.extras)}]"
    install("--python", python, *constraints, what, *group, *row.packages)
    return python


def find_python(version: str) -> str:
    """The path of an interpreter, from PATH or from pyenv."""
    if not version:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [str(path) for path in sorted(pyenv.glob("*/bin"))]
    path = os.pathsep.join([*places, os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "uv", "python", "find", "--system", "--no-python-downloads"]
    done = subprocess.run(
        [*command, version],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    if done.returncode:
        raise NotAvailable(f"There is no Python {version} on this machine.")
    return done.stdout.strip()


def build_wheel(home: Path, python: str) -> Path:
    for old in (home / "dist").glob("*.whl"):
        old.unlink()
    uv("build", "--wheel", "--python", python, "--out-dir", str(home / "dist"), str(ROOT))
    (wheel,) = (home / "dist").glob("*.whl")
    return wheel


def compile_versions(file: Path, python: str, extras: Sequence[str], *options: str) -> None:
    """Write the versions that pyproject.toml resolves to."""
    file.parent.mkdir(parents=True, exist_ok=True)
    chosen = [argument for extra in extras for argument in ("--extra", extra)]
    output = ["--python", python, "--no-header", "--no-annotate", "--output-file", str(file)]
    # Without `--upgrade`, uv keeps the versions that are in the file.
    uv("pip", "compile", "--upgrade", *chosen, *options, *output, str(ROOT / "pyproject.toml"))


def install(*arguments: str) -> None:
    try:
        uv("pip", "install", *arguments)
    except subprocess.CalledProcessError:
        raise NotAvailable("Its packages cannot be installed here, as said above.") from None


def uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def run_tests(python: str, arguments: Sequence[str]) -> int:
    """Run pytest with the engines of the environment that runs this; return its exit status."""
    environment = {**os.environ, "CHALK_DYNOXIDE": find_dynoxide()}
    environment["CHALK_MINISTACK"] = find_ministack()
    environment.pop("PYTHONPATH", None)
    options = ["-q", "-r", "fE", "-p", "no:cacheprovider", "-n", WORKERS, "--dist", "loadscope"]
    command = [python, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def read_report(report: Path, status: int, seconds: float) -> Outcome:
    """Read what pytest counted."""
    if not report.exists():
        return Outcome("failed", seconds=seconds)
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    verdict = "failed" if status or tests == skipped else "passed"
    return Outcome(verdict, tests, failures + errors, skipped, seconds)


def print_table(rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
    print(f"\n{'row':22}{'tests':>7}{'failed':>8}{'skipped':>9}{'seconds':>9}  result")
    for row, it in zip(rows, outcomes, strict=True):
        counts = f"{it.tests:>7}{it.failed:>8}{it.skipped:>9}{it.seconds:>9.0f}"
        print(f"{row.name:22}{counts}  {it.verdict}")


if __name__ == "__main__":
    main()
