"""The way from a run's processes to Redis, which can be cut for one of them.

Every connection goes through here. A cut one is torn, or carries nothing for the while; who is cut
off gets no new one.
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Literal

import psutil

Kind = Literal["torn", "silent"]


class Network:
    """Listens at `port` from a thread of its own, for as long as the process lives."""

    def __init__(self, redis_folder: Path) -> None:
        """`redis_folder`: of the embedded server, whose redis.conf says where it listens."""
        self._conf = redis_folder / "redis.conf"
        self._loop = asyncio.new_event_loop()
        self._open: dict[int, list[asyncio.StreamWriter]] = {}
        """By the port of whoever connected: both ends."""
        self._cut: dict[int, Kind] = {}
        """By process."""
        threading.Thread(target=self._loop.run_forever, name="network", daemon=True).start()
        listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop)
        self.port: int = listening.result(30)

    def cut(self, process: psutil.Process, kind: Kind, seconds: float) -> None:
        """Nothing of a process reaches Redis for so long."""
        self._cut[process.pid] = kind
        if kind == "torn":
            self._loop.call_soon_threadsafe(self._tear, _ports(process.pid))
        time.sleep(seconds)
        del self._cut[process.pid]

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        await self._passes(port)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._redis_port())
        except OSError:  # it is down
            writer.transport.abort()
            return
        self._open[port] = [writer, there]
        try:
            await asyncio.gather(
                self._carry(port, reader, there), self._carry(port, there_reader, writer)
            )
        finally:
            self._tear({port})

    async def _carry(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await _read(reader):
            await self._passes(port)
            writer.write(data)
        self._tear({port})

    async def _passes(self, port: int) -> None:
        """Once the process behind this port is not cut off."""
        while any(port in _ports(pid) for pid in list(self._cut)):
            await asyncio.sleep(0.05)

    def _tear(self, ports: set[int]) -> None:
        for port in ports & self._open.keys():
            for writer in self._open.pop(port):
                writer.transport.abort()

    def _redis_port(self) -> int:
        for line in self._conf.read_text().splitlines():
            if line.startswith("port "):
                return int(line.split()[1])
        raise OSError("its configuration is being written")


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""


def _ports(pid: int) -> set[int]:
    """Of a process's connections, on its side."""
    try:
        found = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {each.laddr.port for each in found}
