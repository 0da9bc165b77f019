"""Make the demo's data."""

import asyncio

from orchestrator.config.settings import DemoDataJob
from orchestrator.stages.context import StageContext
from services.data.demo_data import make_demo_data


async def run(job: DemoDataJob, context: StageContext) -> dict[str, float]:
    """Fill the artifact with JSONL files; returns the rows of each."""
    rows = await asyncio.to_thread(make_demo_data, context.out, job, job.seed)
    return {name.removesuffix(".jsonl"): float(count) for name, count in rows.items()}
