"""A training run beside an asyncio loop, by a process that has no use for Ray Train before."""

import threading
from concurrent.futures import Future
from typing import Any

from services.imports import heavy_imports


def start(*arguments: Any, **options: Any) -> "Future[dict[str, float]]":
    """`ray_train.fit` with these arguments, in a thread that never keeps the process alive.

    Ray Train is imported in the thread as well: a second and a half of CPU time.
    """
    future: Future[dict[str, float]] = Future()
    future.set_running_or_notify_cancel()  # a thread cannot be cancelled

    def run() -> None:
        try:
            with heavy_imports():
                from services.learner.train.ray_train import fit
            future.set_result(fit(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - whoever holds the future gets it
            future.set_exception(error)

    threading.Thread(target=run, name="learner", daemon=True).start()
    return future
