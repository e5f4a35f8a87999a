"""Workers as the process that orders them sees them, and the cores that they and servers are on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.server import ROOT
from benchmarks.workloads import Workload


class WorkerFailed(Exception):
    """A worker did not do what it was told; the message says why."""


class NotInstalled(WorkerFailed):
    """The client's library is not in the environment of its worker."""


def cores() -> tuple[int | None, int | None]:
    """One core for clients and one for servers, where there are two and the system can do it."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[-1]) if len(mine) > 1 else (None, None)


def python_for(client: str) -> str:
    """The interpreter for a client: of the environment beside ours that is named after it."""
    name = client.partition(" ")[0].lower()
    own = Path(sys.prefix).parent / name / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a process that takes lines, and answers with lines."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us, who then close its input.
    )


class Crewman:
    """One worker: started on entering `with`, ended on leaving it.

    Raises `NotInstalled` on entering where the client's library is not there.
    """

    def __init__(self, client: str, url: str, core: int | None = None) -> None:
        self.client = client
        self.prefix = re.sub(r"\W+", "_", client)
        self._command = [python_for(client), "-m", "benchmarks.worker", client, url]
        self._command += [self.prefix, str(core)]

    def __enter__(self) -> Self:
        self._process = start(self._command)
        try:
            hello = self._answer()
        except WorkerFailed:
            self._process.communicate()
            raise
        self.tasks: bool = hello["tasks"]
        self.reads_only: bool = hello["reads_only"]
        self.keys: list[str] = hello["keys"]
        self.versions: dict[str, str] = hello["versions"]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def table(self, features: int) -> str:
        """The name of its table of rows with so many features, as `Client.table` has it."""
        return f"{self.prefix}.features_{features}"

    @property
    def at_once(self) -> int:
        """How many calls it has under way, unless told otherwise."""
        return 16 if self.tasks else 1

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have it do something; raises `WorkerFailed`."""
        plain = {
            name: value.as_json() if isinstance(value, Workload) else value
            for name, value in arguments.items()
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": command, **plain}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "missing" in answer:
            raise NotInstalled(f"{self.client}: {answer['missing']}")
        if "error" in answer:
            raise WorkerFailed(f"{self.client}: {answer['error']}")
        return answer


@contextmanager
def crew(clients: Iterable[str], url: str, core: int | None) -> Iterator[list[Crewman]]:
    """Workers for those of the clients that are installed; says which are not."""
    with ExitStack() as stack:
        yield list(_entered(stack, clients, url, core))


def _entered(
    stack: ExitStack, clients: Iterable[str], url: str, core: int | None
) -> Iterator[Crewman]:
    for client in clients:
        try:
            yield stack.enter_context(Crewman(client, url, core))
        except NotInstalled as error:
            print(f"left out, not installed: {error}")
