"""Starts the whole reward service: Serve replicas, then the gateway before them."""

import secrets
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import ray

from services.hub import find_model
from services.restarting import RestartingHandle
from services.reward import gateway, serve_app
from services.reward.settings import ModelReward, RewardSettings


class RunningReward(RestartingHandle):
    """A reward service that answers at `address` until `stop`, to whoever has `token`.

    Serve itself looks after the replicas.
    """

    name = gateway.NAME

    def __init__(
        self, application: str, actor: Any, replicas: Any, address: str, token: str
    ) -> None:
        super().__init__(actor)
        self.address, self.token = address, token
        self._application, self._replicas = application, replicas

    async def revive(self) -> None:
        """As RestartingHandle; it listens then, at the address it had unless its machine is gone.

        Raises UnreachableError when its port was taken meanwhile.
        """
        await super().revive()
        port = int(self.address.rpartition(":")[2])
        self.address = await self._call("start", self._replicas, port)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Close the gateway and remove the replicas."""
        with suppress(ray.exceptions.RayError):  # gone already is what was asked for
            ray.get(self.actor.stop.remote(), timeout=timeout_s)
        self.kill()
        serve_app.stop(self._application)


def launch(
    settings: RewardSettings,
    *,
    run: str,
    folder: str = "",
    timeout_s: float = 180.0,
    called_off: Event | None = None,
) -> RunningReward:
    """Start the reward of a run and wait until it answers. Ray must be connected.

    `folder` is what relative model paths and the user's own modules start from; the current
    one by default. Raises ArtifactError for a model folder that is not there, WorkerError with
    the cause when a part does not load or once `called_off` is set (from another thread: nobody
    wants it any more), StallError past `timeout_s`, UnreachableError when reward.port is taken.
    """
    name, folder = f"reward-{run}", folder or str(Path.cwd())
    for part in settings.parts:
        if isinstance(part, ModelReward):
            find_model(part.path, folder)  # before anything starts: the usual mistake is quick
    token = secrets.token_hex(32)
    actor = gateway.create(settings, token)  # comes up while the replicas load
    try:
        handle = serve_app.start(
            settings, name=name, folder=folder, timeout_s=timeout_s, called_off=called_off
        )
        address = gateway.connect(actor, handle, timeout_s)
    except BaseException:
        ray.kill(actor)
        serve_app.stop(name)
        raise
    return RunningReward(name, actor, handle, address, token)
