"""A job that nobody but its own file and one registry line knows: what adding a job takes."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from orchestrator.artifacts.lineage import Lineage
from orchestrator.jobs.job import Job, Makes
from services.data.rows import read_prompts
from services.data.settings import DataSource
from services.errors import ConfigError, Waiting
from services.inputs import Rows
from services.settings import Operational

if TYPE_CHECKING:
    from orchestrator.stages.context import StageContext

PATH = "tests.toy_job:CountAnswers"
LINE = {"count_answers": PATH}
"""The registry's line."""


class CountAnswers(Job):
    """Counts the prompts of a data set, once a person has laid a file of that name beside it."""

    makes: ClassVar[Makes] = "dataset"
    may_wait: ClassVar[bool] = True

    job: Literal["count_answers"] = "count_answers"
    prompts: Annotated[DataSource, Rows("prompts")]
    step: int = Field(1, ge=1)
    waits_for: Operational[str] = ""

    def check(self, lineage: Lineage) -> None:
        """A count of its own."""
        if self.step == 13:
            raise ConfigError("'step': 13 brings no luck; take another")

    async def run(self, context: "StageContext") -> dict[str, float]:
        """Write the count to count.txt."""
        from pathlib import Path

        if self.waits_for and not Path(self.waits_for).is_file():
            raise Waiting(f"{context.stage} waits for {self.waits_for}; the same command goes on")
        count = len(read_prompts(self.prompts)) * self.step
        context.out.mkdir()
        (context.out / "count.txt").write_text(f"{count}\n")
        return {"count": float(count)}
