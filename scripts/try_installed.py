"""Install the built wheel into a virtual environment of its own, and run tests on it there.

The tests see the wheel, not the source. With `--lowest`, the dependencies of the package and of
its extras are the oldest that pyproject.toml allows; what the tests need besides is not.

Usage: `python scripts/try_installed.py --python 3.13 [--lowest] -- PYTEST_ARGUMENTS`. A Python is
a version or a path, as uv takes them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from chalk_online_store.testing.engines import find_dynoxide

ROOT = Path(__file__).parents[1]
WHERE = ROOT / ".try"
EXTRAS = ("aioboto3", "arrow", "chalkpy", "cli", "demo", "otel", "plots", "testing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--lowest", action="store_true")
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    home = WHERE / f"{Path(options.python).name}{'-lowest' * options.lowest}"
    shutil.rmtree(home, ignore_errors=True)
    python = make(home, options.python)
    install(home, python, lowest=options.lowest)
    tell(python)
    raise SystemExit(test(python, options.tests))


def make(home: Path, python: str) -> Path:
    """The Python of a new virtual environment."""
    uv("venv", "--no-python-downloads", "--python", python, str(home))
    return home / "bin" / "python"


def install(home: Path, python: Path, *, lowest: bool) -> None:
    """Install the wheel with its extras, and what the tests need."""
    uv("build", "--wheel", "--python", str(python), "--out-dir", str(home / "dist"), str(ROOT))
    (wheel,) = (home / "dist").glob("*.whl")
    constraints = ["--constraint", str(oldest(home, python))] if lowest else []
    what = f"{wheel}[{','.join(EXTRAS)}]"
    group = ["--group", f"{ROOT / 'pyproject.toml'}:tests"]
    uv("pip", "install", "--python", str(python), *constraints, what, *group)


def oldest(home: Path, python: Path) -> Path:
    """A file of the oldest versions that pyproject.toml allows, all together."""
    file = home / "lowest.txt"
    extras = [argument for extra in EXTRAS for argument in ("--extra", extra)]
    options = ["--resolution", "lowest-direct", "--python", str(python), "--output-file", str(file)]
    uv("pip", "compile", *extras, *options, str(ROOT / "pyproject.toml"))
    return file


def tell(python: Path) -> None:
    """Print what is tested: it is not the source."""
    code = "import sys, chalk_online_store as p; print(sys.version.split()[0], p.__file__)"
    subprocess.run([python, "-I", "-c", code], check=True)
    uv("pip", "list", "--python", str(python))


def test(python: Path, arguments: list[str]) -> int:
    """Run pytest; the engine is the one of the environment that runs this. Its exit status."""
    command = [str(python), "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "CHALK_DYNOXIDE": find_dynoxide()}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
