"""Ray's errors, made as Ray makes them, come out as ours."""

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    OwnerDiedError,
    RayTaskError,
)

from services.errors import (
    DataError,
    PairloopError,
    WorkerDiedError,
    WorkerError,
)
from services.errors import OutOfMemoryError as OurOutOfMemoryError
from services.ray_errors import answered, unwrapped

MONITOR = """1 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 192.0.2.2, ID: 55713a) was 22.36GB used / 23.54GB limit (0.95)
OOM kill reason: Memory usage exceeded
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
14071\t18.25\tray::_RayTrainWorker__execute.run
13690\t0.10\t.venv/bin/python orchestrator/run.py
Refer to the documentation"""


def task_error(cause: Exception) -> RayTaskError:
    """As a remote call raises it: of the cause's class too, with a traceback as its text."""
    wrapped = RayTaskError("method", "Traceback ...\n  line\nend", cause, "ray::Actor", 1, "::1")
    return wrapped.as_instanceof_cause()


def died(text: str) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = text
    return error


def test_one_of_ours_comes_out_as_it_was_raised() -> None:
    ours = DataError("rows.jsonl:3: no prompt; add one")
    assert unwrapped(task_error(ours), "rollout-0") is ours
    assert unwrapped(ours, "rollout-0") is ours


def test_a_foreign_error_is_named_with_who_raised_it() -> None:
    found = unwrapped(task_error(ValueError("not\nthis")), "rollout-0")
    assert (type(found), str(found)) == (WorkerError, "rollout-0: ValueError: not this")
    assert str(unwrapped(KeyError("x"), "pairs-1")) == "pairs-1: KeyError: 'x'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Worker exit type: SYSTEM_ERROR ... OOM killer", "its process was killed or crashed"),
        ("The actor died because its node has died. Node Id: 4", "its machine was lost"),
        ("because it was killed by `ray.kill`.", "it was ended by ray.kill"),
    ],
)
def test_a_death_says_what_is_known_and_what_to_do(text: str, reason: str) -> None:
    found = unwrapped(died(text), "rollout-0")
    assert type(found) is WorkerDiedError
    assert str(found) == f"rollout-0 died: {reason}; the same command goes on where it stood"


def test_who_only_met_somebody_elses_death_did_not_die() -> None:
    found = unwrapped(task_error(died("pages of text")), "pairs-0")
    assert (type(found), str(found)) == (WorkerError, "pairs-0: ActorDiedError: pages of text")
    owner = OwnerDiedError("ab", "", "")
    assert type(unwrapped(task_error(owner), "rollout-0")) is WorkerError


def test_an_actor_that_cannot_be_reached_is_a_death() -> None:
    assert type(unwrapped(ActorUnavailableError("rpc failed", None), "x")) is WorkerDiedError


def test_the_memory_monitor_names_the_largest_process_the_machine_and_the_settings() -> None:
    found = unwrapped(OutOfMemoryError(MONITOR), "rollout-1")
    assert type(found) is OurOutOfMemoryError
    assert found.exit_code == 3
    assert str(found) == (
        "rollout-1 was killed for lack of memory: the learner was the largest process and held"
        " 18.2 of its machine's 23.5 GiB; lower train.micro_batch_tokens or train.max_length"
    )
    assert type(unwrapped(died(MONITOR), "rollout-1")) is OurOutOfMemoryError


def test_an_unknown_account_of_memory_still_says_what_to_lower() -> None:
    found = unwrapped(OutOfMemoryError("the node running low on memory"), "rollout-1")
    assert str(found).endswith("; free some, or lower engine.kv_cache_gib or engine.max_num_seqs")


async def test_a_remote_call_gives_its_answer_or_an_error_of_ours() -> None:
    async def call(error: Exception | None) -> int:
        if error:
            raise error
        return 3

    assert await answered(call(None), "x") == 3
    with pytest.raises(PairloopError, match="x died: its machine was lost") as caught:
        await answered(call(died("NodeDied")), "x")
    assert isinstance(caught.value.__cause__, ActorDiedError)
