"""Engines that only the project's own tests start."""

from __future__ import annotations

import socket
import sys

from chalk_online_store.testing.engines import HOST, ProcessEngine


class MotoProcess(ProcessEngine):
    """The moto server as a process, so that its threads are not in the one that runs tests."""

    def __init__(self) -> None:
        super().__init__(timeout=60)

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)]

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port or 0), timeout=1.0).close()
        except OSError:
            return False
        return True
