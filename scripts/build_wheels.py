"""Build the distributions that this machine can build, and try each wheel in a clean environment.

Builds the source distribution, a wheel with the part in C for each Python that is named, and the
pure-Python wheel, into `dist`. Wheels for other platforms are cibuildwheel's: see pyproject.toml.

Usage: `python scripts/build_wheels.py [PYTHON ...]`. A Python is a version or a path, as uv takes
them. Default: the interpreter that runs this.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PURE = {"CHALK_ONLINE_STORE_PURE": "1"}


def main() -> None:
    pythons = sys.argv[1:] or [sys.executable]
    shutil.rmtree(DIST, ignore_errors=True)
    uv("build", "--sdist", "--out-dir", str(DIST), str(ROOT))
    (sdist,) = DIST.glob("*.tar.gz")
    for python in pythons:
        try_wheel(build_wheel(sdist, python), python, "--compiled")
    try_wheel(build_wheel(sdist, pythons[0], PURE), pythons[0], "--pure")
    print(*sorted(path.name for path in DIST.iterdir()), sep="\n")


def build_wheel(sdist: Path, python: str, environment: dict[str, str] | None = None) -> Path:
    """Build a wheel from the source distribution, as pip does where no wheel fits."""
    with tempfile.TemporaryDirectory() as directory:
        out = ["--out-dir", directory]
        uv("build", "--wheel", "--python", python, *out, str(sdist), environment=environment)
        (wheel,) = Path(directory).glob("*.whl")
        return Path(shutil.move(wheel, DIST / wheel.name))


def try_wheel(wheel: Path, python: str, decoder: str) -> None:
    """Install a wheel alone, and check that the store works with the expected decoder."""
    with tempfile.TemporaryDirectory() as directory:
        uv("venv", "--no-python-downloads", "--python", python, directory)
        own = str(Path(directory) / "bin" / "python")
        uv("pip", "install", "--python", own, str(wheel))
        check = str(ROOT / "scripts" / "check_installed.py")
        subprocess.run([own, "-I", check, decoder], check=True, cwd=directory)


def uv(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "uv", "--quiet", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})})


if __name__ == "__main__":
    main()
