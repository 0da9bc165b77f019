"""Whether the parts of a stage find room on the nodes there are, before any of them starts.

A part is an actor, so all that it reserves is of one node: an engine of eight GPUs needs a node of
eight, however many there are in all. The search knows single GPUs, as Ray does: half of one and
half of another are no whole one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.jobs.job import Job
from services.errors import ResourceError
from services.learner.settings import TrainSettings
from services.reward.settings import RewardSettings
from services.rollout.settings import EngineSettings
from services.settings import fields_of

_STEPS = 20_000
"""Of the search: what is not decided by then is not refused."""
_MOST = 500
"""Bundles that are looked at; a stage of more is not refused."""
_EPSILON = 1e-6


@dataclass(frozen=True, order=True)
class Bundle:
    """What one process reserves, on one node."""

    gpus: float
    cpus: float
    part: str
    """The key of its settings."""
    count: str
    """The key, among those, of how many there are."""

    def __str__(self) -> str:
        return f"{self.gpus:g} GPUs and {self.cpus:g} CPUs"


@dataclass(frozen=True, order=True)
class Node:
    """What is left of a node."""

    gpus: tuple[float, ...]
    """Share of each device that is free, the least first."""
    cpus: float

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> "Node":
        """As Ray names what a node has."""
        return cls((1.0,) * int(resources.get("GPU", 0)), resources.get("CPU", 0.0))

    def taken(self, bundle: Bundle) -> Iterator["Node"]:
        """This node with the bundle on it, in every way that differs."""
        cpus = round(self.cpus - bundle.cpus, 6)
        if cpus < -_EPSILON:
            return
        if not bundle.gpus:
            yield Node(self.gpus, cpus)
        elif bundle.gpus < 1:
            for share in sorted({each for each in self.gpus if each > bundle.gpus - _EPSILON}):
                rest = list(self.gpus)
                rest.remove(share)
                yield Node(tuple(sorted([*rest, round(share - bundle.gpus, 6)])), cpus)
        elif sum(each > 1 - _EPSILON for each in self.gpus) >= bundle.gpus:
            left = len(self.gpus) - int(bundle.gpus)  # the whole ones come last
            yield Node(tuple(sorted([*self.gpus[:left], *[0.0] * int(bundle.gpus)])), cpus)


def check_placement(stages: Iterable[Job], nodes: Sequence[Mapping[str, Any]]) -> None:
    """ResourceError for a stage whose parts these nodes, as `ray.nodes()` has them, cannot hold."""
    there = [Node.of(node["Resources"]) for node in nodes if node["Alive"]]
    for stage in stages:
        bundles = bundles_of(stage)
        if left := unplaced(bundles, there):
            raise ResourceError(f"{stage.job}: {_shortage(left, bundles, there)}")


def bundles_of(stage: Job) -> list[Bundle]:
    """Of all parts of a stage that live at once."""
    found: list[Bundle] = []
    for name, _, value in fields_of(stage):
        if isinstance(value, EngineSettings | TrainSettings):
            found += [Bundle(value.num_gpus, value.num_cpus, name, "workers")] * value.workers
        elif isinstance(value, RewardSettings):
            found += [Bundle(value.num_gpus, value.num_cpus, name, "replicas")] * value.replicas
    return found


def unplaced(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> list[Bundle]:
    """What the best try leaves over where there is no way; [] where all fit, or may.

    The largest first, each on the fullest node that has room; where that is no way, every other
    one is tried, and what comes to the same is tried once.
    """
    if len(bundles) > _MOST:
        return []
    ordered = sorted(bundles, reverse=True)
    fewest, steps = ordered, 0
    seen: set[tuple[int, tuple[Node, ...]]] = set()

    def placed(at: int, there: tuple[Node, ...]) -> bool:
        nonlocal fewest, steps
        steps += 1
        if len(ordered) - at < len(fewest):
            fewest = ordered[at:]
        if at == len(ordered) or steps > _STEPS:
            return True
        if (at, there) in seen:
            return False
        seen.add((at, there))
        for index, node in enumerate(there):
            for rest in node.taken(ordered[at]):
                if placed(at + 1, tuple(sorted((*there[:index], rest, *there[index + 1 :])))):
                    return True
        return False

    return [] if placed(0, tuple(sorted(nodes))) else list(fewest)


def _shortage(left: Sequence[Bundle], bundles: Sequence[Bundle], nodes: Sequence[Node]) -> str:
    """What finds no room, what there is, and what to set."""
    lacking = left[0]
    same = sum(each == lacking for each in bundles)
    sizes = Counter(f"{len(node.gpus)} GPUs and {node.cpus:g} CPUs" for node in nodes)
    there = ", ".join(f"{count} x {size}" for size, count in sizes.items()) or "none"
    alone = not any(True for node in nodes for _ in node.taken(lacking))
    where = "on one node" if alone else "beside the rest"
    counts = [len(node.gpus) for node in nodes]
    if alone:
        scarce = lacking.gpus > max(counts, default=0)
    else:  # of shares the sum may be there, and no single device
        enough = sum(each.cpus for each in bundles) <= sum(node.cpus for node in nodes)
        scarce = lacking.gpus > 0 and (enough or sum(each.gpus for each in bundles) > sum(counts))
    key = f"{lacking.part}.{'num_gpus' if scarce else 'num_cpus'}"
    lower = key if alone else f"{lacking.part}.{lacking.count} or {key}"
    return (
        f"no room {where} for one of {same} of '{lacking.part}', which takes {lacking}; nodes:"
        f" {there}; lower {lower}, or add nodes"
    )
