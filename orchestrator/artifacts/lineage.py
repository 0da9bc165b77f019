"""Which models a job starts from, and where each was found.

    given      the config names it
    lineage    an ancestor of the policy, by artifact.json or, before a run, by the recipe
    hub        Qwen2's naming: "Qwen/Qwen2-7B-Instruct" was fine-tuned from "Qwen/Qwen2-7B"

A lineage reads finished artifacts and the stages that are still to be made alike: "@sft" is the
artifact that stage will be.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from orchestrator.artifacts.inputs import inputs_of
from orchestrator.artifacts.store import REPLACED, WORK, kept_by, made_by, mark_of
from orchestrator.checks.models import check_chat, check_same_shapes, check_same_tokenizer
from orchestrator.jobs.registry import JOBS, job_class
from services.errors import ConfigError, LineageError
from services.hub import is_hub_name
from services.learner.model.shape import ModelShape
from services.learner.settings import AdamWSettings, OptimizerSettings

if TYPE_CHECKING:
    from orchestrator.jobs.job import Job

_TUNED = "-Instruct"


class Parent(str):
    """A model's place: folder, hub name or "@stage"; `source` says how it was found."""

    source: Literal["given", "lineage", "hub", "policy"]

    def __new__(
        cls, path: str, source: Literal["given", "lineage", "hub", "policy"] = "given"
    ) -> "Parent":
        """A string that knows where it comes from."""
        parent = super().__new__(cls, path)
        parent.source = source
        return parent


class Aligned(Protocol):
    """What a DPO job's settings say of its models."""

    @property
    def policy(self) -> str: ...  # noqa: D102
    @property
    def reference(self) -> str | None: ...  # noqa: D102
    @property
    def base(self) -> str | None: ...  # noqa: D102
    @property
    def train(self) -> "Trained": ...  # noqa: D102


class Trained(Protocol):
    """Training settings, as far as lineage reads them."""

    @property
    def optimizer(self) -> OptimizerSettings: ...  # noqa: D102


@dataclass(frozen=True)
class _Made:
    kind: str
    parents: Mapping[str, str]


class Lineage:
    """Ancestors of models, among artifacts and the stages of one run."""

    def __init__(self, stages: "Mapping[str, Job] | None" = None) -> None:
        self._stages = dict(stages or {})

    def alignment(self, job: Aligned) -> dict[str, Parent]:
        """Reference and, for OMO, base of a DPO job. ConfigError when there is no base to find."""
        reference = self.reference(job.policy, job.reference)
        found = {"reference": reference}
        if not isinstance(job.train.optimizer, AdamWSettings):
            found["base"] = self.base(reference, job.base, job.train.optimizer.kind)
        return found

    def reference(self, policy: str, given: str | None) -> Parent:
        """The frozen reference: as given, else the policy as it was before any preference job."""
        if given is not None:
            return Parent(given)
        seen: set[str] = set()
        current = policy
        while current not in seen:
            seen.add(current)
            made = self._made(current)
            if made is None or not _aligns(made.kind) or "policy" not in made.parents:
                break
            current = made.parents["policy"]
        return Parent(current, "policy" if current == policy else "lineage")

    def base(self, reference: str, given: str | None, optimizer: str) -> Parent:
        """The model that the reference was fine-tuned from."""
        if given is not None:
            return Parent(given)
        made = self._made(reference)
        if made is not None and "policy" in made.parents:
            return Parent(made.parents["policy"], "lineage")
        if is_hub_name(reference) and reference.endswith(_TUNED):
            return Parent(reference.removesuffix(_TUNED), "hub")
        place = " (there is no such folder here)" if is_hub_name(reference) else ""
        raise ConfigError(
            f"'base' is missing: {optimizer} needs tau = reference - base, and '{reference}' has no"
            f" lineage{place}; set base to the model it was fine-tuned from, or"
            " train.optimizer.kind to adamw"
        )

    def parents_of(self, path: str) -> Mapping[str, str]:
        """Where each parent of a model is by now, by its role; none of what has no record."""
        made = self._made(path)
        return {} if made is None else made.parents

    def new_shape(self, path: str) -> tuple[str, ModelShape] | None:
        """The stage that will make this model from nothing, and its shape; None for others."""
        first = self.first(path)
        stage = self._stages.get(first[1:]) if first.startswith("@") else None
        shape = None if stage is None else stage.new_shape()
        return None if shape is None else (first[1:], shape)

    def first(self, path: str) -> str:
        """What a model is made from by training stages of this run, and shares its shape with.

        A folder or hub name, or the "@stage" that begins from no policy; other paths as they are.
        """
        seen: set[str] = set()
        while path.startswith("@") and path not in seen:
            seen.add(path)
            made = self._made(path)
            if made is None or "policy" not in made.parents:
                break
            path = made.parents["policy"]
        return path

    def _made(self, path: str) -> _Made | None:
        if path.startswith("@"):
            stage = self._stages.get(path[1:])
            if stage is None:
                return None
            return _Made(stage.job, {each.role: each.value for each in inputs_of(stage)})
        artifact = made_by(path)
        if artifact is None:
            return None
        parents = dict(artifact.parents)
        for role, wanted in artifact.parent_fingerprints.items():
            parents[role] = _at(parents[role], wanted, f"{path}, its {role}")
        return _Made(artifact.kind, parents)


def _aligns(kind: str) -> bool:
    """Whether the job that made an artifact trains on preferences; one that is gone does not."""
    return kind in JOBS and job_class(kind).aligns


def check_alignment(policy: str, parents: Mapping[str, Parent]) -> None:
    """LineageError unless policy, reference and base fit; what is not made yet does."""
    check_chat(policy, "policy")
    reference, base = parents["reference"], parents.get("base")
    check_same_tokenizer(policy, reference, "reference")
    check_same_shapes(policy, reference, ("policy", "reference"))
    if base is not None:
        check_same_shapes(reference, base, ("reference", "base"))


def _at(path: str, wanted: str, whose: str) -> str:
    """The model of this mark: at its place, or where it has gone from there."""
    place = kept_by(path) or Path(path)
    rest = Path(path).relative_to(place)
    for candidate in _places(place):
        if (candidate / rest).exists() and mark_of(candidate / rest) == wanted:
            return str(candidate / rest)
    if not Path(path).exists():
        return path
    raise LineageError(
        f"{whose}: {path} holds another artifact by now (wanted {wanted}); bring the first one"
        " back, or name the model it should be"
    )


def _places(place: Path) -> Iterator[Path]:
    """Where a folder of a run may be by now: finished since, or pushed away by newer work."""
    finished = place
    if place.parent.name == WORK:
        yield place
        finished = place.parent.parent / place.name.rpartition("-")[0]
    yield finished
    yield from sorted((finished.parent / REPLACED).glob(f"{finished.name}-*"))
