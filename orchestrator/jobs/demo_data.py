"""Make the demo's data."""

import asyncio
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from orchestrator.jobs.job import Job, Makes

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext


class DemoData(Job):
    """Make the demo's data: texts of the running Python's library, instructions with answers."""

    makes: ClassVar[Makes] = "dataset"

    job: Literal["demo_data"] = "demo_data"
    corpus_megabytes: float = Field(4.0, gt=0.0)
    """Pre-training text, in millions of characters."""
    demonstrations: int = Field(12_000, ge=1)
    """Dialogues for SFT."""
    corrupted: float = Field(0.4, ge=0.0, le=1.0)
    """Share of demonstrations with a mistake in them, as real ones have."""
    prompts: int = Field(4_000, ge=1)
    """For preferences and online episodes; some skills are left out of them."""
    heldout_prompts: int = Field(256, ge=1)
    """For evaluation, all skills."""

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Fill the artifact with JSONL files; returns the rows of each."""
        from services.data.demo_data import make_demo_data

        rows = await asyncio.to_thread(make_demo_data, context.out, self, self.seed)
        return {name.removesuffix(".jsonl"): float(count) for name, count in rows.items()}
