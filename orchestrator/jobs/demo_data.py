"""Make the demo's data."""

import asyncio

from orchestrator.config import DemoDataJob
from orchestrator.work import Work
from services.data.demo_data import make_demo_data


async def run(job: DemoDataJob, work: Work) -> dict[str, float]:
    """Fill the artifact with JSONL files; returns the rows of each."""
    rows = await asyncio.to_thread(make_demo_data, work.out, job, job.seed)
    return {name.removesuffix(".jsonl"): float(count) for name, count in rows.items()}
