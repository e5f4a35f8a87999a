"""Run Feast's own online-store tests against ours: `make test-feast FEAST=DIR`.

`DIR` is a checkout of Feast, of the version in tests/feast_suite/requirements.txt:

    git clone --depth 1 --branch v0.66.0 https://github.com/feast-dev/feast

Nothing of it is kept here. The tests run once for each URL that is given, or on SQLite and on
dynoxide.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chalk_online_store.testing import Dynoxide, create_table

SUITE = Path(__file__).parents[1] / "tests" / "feast_suite"

FILES = (
    "integration/online_store/test_universal_online.py",
    "integration/online_store/test_universal_e2e.py",
    "integration/online_store/test_push_features_to_online_store.py",
    "integration/online_store/test_universal_online_types.py",
    "integration/materialization/test_universal_materialization.py",
    "integration/offline_store/test_push_features_to_offline_store.py",
)

WITHOUT = "not dynamo"
"""Two tests start Feast's own DynamoDB store in Docker, whatever they are told."""


def main() -> int:
    """How many of the runs failed."""
    arguments = _arguments()
    if not (arguments.feast / "sdk" / "python" / "tests").is_dir():
        sys.exit(f"{arguments.feast} is no checkout of Feast: it has no sdk/python/tests.")
    failed = 0
    for url in arguments.url or ("sqlite", "dynoxide"):
        with _opened(url) as found:
            print(f"--- Feast's tests on {url}", flush=True)
            failed += _run(arguments.python, arguments.feast.resolve(), found) != 0
    return failed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("feast", type=Path, help="a checkout of Feast")
    parser.add_argument("--python", type=Path, required=True, help="of Feast's environment")
    parser.add_argument("--url", action="append", help="of an empty store")
    return parser.parse_args()


@contextmanager
def _opened(url: str) -> Iterator[str]:
    """The URL of an empty store on a named engine, or the URL that is one."""
    if url == "sqlite":
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite:///{directory}/features.db"
    elif url == "dynoxide":
        with Dynoxide() as engine:
            create_table(engine.endpoint_url, "feast")
            yield engine.url("feast")
    else:
        yield url


def _run(python: Path, feast: Path, url: str) -> int:
    environment = {
        **os.environ,
        "CHALK_FEAST_URL": url,
        "FEAST_IS_LOCAL_TEST": "True",  # Until Feast has chosen what it imports: see repo_configs.
        "FULL_REPO_CONFIGS_MODULE": "repo_configs",
        "IS_TEST": "True",
        "PYTHONPATH": os.pathsep.join((".", str(SUITE))),
    }
    options = ["--integration", "--quiet", "-p", "really_run", "-p", "no:cacheprovider"]
    # Through symbolic links the environment would not be found.
    command = [os.path.abspath(python), "-m", "pytest", *options, "-rs", "-k", WITHOUT]  # noqa: PTH100
    files = [f"tests/{name}" for name in FILES]
    directory = feast / "sdk" / "python"
    return subprocess.run(
        [*command, *files], cwd=directory, env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
