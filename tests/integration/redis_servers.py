"""Redis servers of other kinds than the embedded one: real processes, each in its folder."""

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from services.queues.embedded import _binary
from services.queues.probe import answers

CLUSTER = ('save ""', "cluster-enabled yes", "cluster-node-timeout 1000")
_READY_S = 30.0


@dataclass
class Process:
    """One redis-server on loopback."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def asked(self, password: str | None = None) -> "Redis":
        """A client of this one."""
        return Redis(port=self.port, password=password, protocol=2, socket_timeout=5.0)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@dataclass
class Servers:
    """Those of a test, ended with it."""

    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(self, *lines: str, port: int = 0, sentinel: bool = False) -> Process:
        """With these lines of configuration; returns once it answers. `port`: 0 for a free one."""
        port = port or free_port()
        folder = self.folder / str(port)
        folder.mkdir(parents=True)
        conf = folder / "redis.conf"
        own = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"logfile {folder}/log"]
        conf.write_text("\n".join([*own, *lines]) + "\n")
        words = [_binary(), str(conf), *(["--sentinel"] if sentinel else [])]
        one = Process(port, subprocess.Popen(words, stdout=subprocess.DEVNULL))
        self.started.append(one)
        password = next((line.split()[1] for line in lines if "requirepass" in line), "")
        until(lambda: answers(f"redis://:{password}@{one.address}", 1.0))
        return one

    def cluster_of_one(self, port: int) -> Process:
        """A node that has all slots."""
        node = self.start(*CLUSTER, port=port)
        with node.asked() as asked:
            asked.execute_command("CLUSTER ADDSLOTS", *range(16384))
            until(lambda: asked.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        return node

    def cluster(self) -> list[Process]:
        """Three primaries with a third of the slots each, and a replica of the first."""
        nodes = [self.start(*CLUSTER) for _ in range(4)]
        clients = [node.asked() for node in nodes]
        edges = [0, 5461, 10923, 16384]
        for number, client in enumerate(clients[:3]):
            slots = range(edges[number], edges[number + 1])
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CONFIG SET", "cluster-replica-validity-factor", 0)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port)
        first = clients[0].execute_command("CLUSTER MYID").decode()

        def knows_all(client: Redis) -> bool:
            info = client.execute_command("CLUSTER INFO")
            return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "4"

        until(lambda: all(map(knows_all, clients)))
        clients[3].execute_command("CLUSTER REPLICATE", first)
        until(lambda: clients[3].info("replication").get("master_link_status") == "up")
        # Who asks any node is told of the replica.
        until(lambda: all(len(client.execute_command("CLUSTER SLOTS")) == 3 for client in clients))
        for client in clients:
            client.close()
        return nodes

    def end(self) -> None:
        """End them all."""
        for one in self.started:
            if one.process.poll() is None:
                one.kill()
        shutil.rmtree(self.folder)


def free_port() -> int:
    """One that is free, as is the one 10000 above: a cluster's nodes talk there."""
    while True:
        port = random.randrange(20_000, 45_000)
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def until(true: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + _READY_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
