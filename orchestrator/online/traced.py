"""The loop's own steps of a trace: what is dispatched, and the version that engines then hold."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from orchestrator.online.ports import LoopPorts, Weights
from pairloop.data.v1.rollout_pb2 import Prompt
from services.queues.items import Dispatched
from services.queues.ledger import LedgerEvent
from services.telemetry.tracing.spans import Spans, now

Dispatch = Callable[[int, Sequence[Prompt]], Awaitable[Dispatched]]
Ledger = Callable[[int], Awaitable[list[LedgerEvent]]]


def traced(ports: LoopPorts, dispatch: Dispatch, ledger: Ledger, spans: Spans | None) -> LoopPorts:
    """The ports, recording spans; as they are where nothing is traced."""
    if spans is None:
        return ports
    return _Traced(ports, dispatch, ledger, spans).ports()


class _Traced:
    def __init__(self, ports: LoopPorts, dispatch: Dispatch, ledger: Ledger, spans: Spans) -> None:
        self._inner, self._send, self._ledger, self._spans = ports, dispatch, ledger, spans
        self._published: dict[int, tuple[int, int]] = {}
        """Begin and end of the way of a version to the engines."""

    def ports(self) -> LoopPorts:
        return replace(
            self._inner,
            dispatch=self._dispatch,
            publish=self._publish,
            archive=self._archive,
        )

    async def _dispatch(self, episode: int, prompts: Sequence[Prompt]) -> Dispatched:
        start = now()
        done = await self._send(episode, prompts)
        sent = prompts[done.known : done.known + done.sent]
        self._spans.record_all("dispatch", [x.id for x in sent], start, {"episode": episode})
        return done

    async def _publish(self, weights: Weights) -> None:
        start = now()
        await self._inner.publish(weights)
        self._published[weights.version] = start, now()

    async def _archive(self, episode: int) -> bool:
        """Only now is it known whose pairs the version was trained on."""
        if (times := self._published.pop(episode, None)) is not None:
            (start, end), about = times, {"version": episode}
            for event in await self._ledger(episode):
                if event.kind == "trained":
                    self._spans.record("publish", event.id, start, end=end, about=about)
        return await self._inner.archive(episode)
