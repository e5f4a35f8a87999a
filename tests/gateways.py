"""What stands between a client and an engine: a gateway that forgets, a balancer that breaks."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import threading
from contextlib import suppress
from typing import Self

HOST = "127.0.0.1"

STRESS = int(os.environ.get("CHALK_STRESS", "1"))
"""How many times more calls attack tests make than in the usual run."""

BREAKS = ("close", "reset", "garbage")


def reset_on_close(sock: socket.socket) -> None:
    """Let the socket's end be a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Gateway:
    """Carries connections to a port of this machine, in a thread with an event loop.

    `forget` makes the connections that are open now stale: what a client sends on them is answered
    by a reset, or swallowed. While `breaks` is set, each new connection is ended in one of these
    ways, after a random time of up to `delay` seconds. `pause` delays what the engine sends.
    """

    def __init__(self, port: int | None, *, pause: float = 0.0) -> None:
        self.opened = 0
        self.breaks: tuple[str, ...] = ()
        self.delay = 0.003
        self._pause = pause
        assert port is not None  # The engine runs.
        self._engine: int = port
        self._forgotten: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._how = ""
        self._random = random.Random(7)
        self._loop = asyncio.new_event_loop()
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def forget(self, how: str) -> int:
        """Make the open connections stale by "reset" or "silent"; how many there were."""
        self._how = how
        self._forgotten = set(self._open)
        return len(self._forgotten)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, sock=self._listener)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            if self.breaks:
                await self._break(writer, self._random.choice(self.breaks))
            else:
                await self._carry(reader, writer)
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _break(self, writer: asyncio.StreamWriter, how: str) -> None:
        await asyncio.sleep(self._random.choice((0, self._random.random() * self.delay)))
        if how == "reset":
            reset_on_close(writer.get_extra_info("socket"))
        elif how == "garbage":
            writer.write(self._random.randbytes(200))
            await asyncio.sleep(self._random.random() * self.delay)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_engine, to_engine = await asyncio.open_connection(HOST, self._engine)
        self._open.add(writer)
        answering = asyncio.create_task(self._answer(from_engine, writer))
        try:
            while data := await reader.read(2**16):
                if writer not in self._forgotten:
                    to_engine.write(data)
                elif self._how == "reset":
                    reset_on_close(writer.get_extra_info("socket"))
                    return
        finally:
            answering.cancel()
            to_engine.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                await asyncio.sleep(self._pause)
                writer.write(data)
        writer.transport.abort()
