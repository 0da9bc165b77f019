"""What is said of a process that was killed for lack of memory: who was largest, what to lower."""

from dataclasses import dataclass

from services.errors import OutOfMemoryError

GIB = 2**30


@dataclass(frozen=True)
class Usage:
    """What one process holds."""

    command: str
    """Its title or command line: Ray calls its own "ray::RolloutActor.run"."""
    bytes: int


_PARTS = (
    ("ray::RolloutActor", "a rollout engine", "engine.kv_cache_gib or engine.max_num_seqs"),
    ("VLLM::", "a rollout engine", "engine.kv_cache_gib or engine.max_num_seqs"),
    ("RayTrainWorker", "the learner", "train.micro_batch_tokens or train.max_length"),
    ("ray::ServeReplica", "a reward replica", "reward.replicas or reward.max_batch_groups"),
    ("ray::PairActor", "a pairing worker", "pairs.workers or pairs.concurrency"),
    ("redis-server", "Redis", "queues.credits"),
)
"""How the title of each process begins or what is in it, its name, the settings that lower it."""


def out_of_memory(who: str, largest: Usage | None, machine_bytes: float) -> OutOfMemoryError:
    """`who` was killed for lack of memory on a machine (or in a cgroup) of so many bytes."""
    machine = f"its machine's {machine_bytes / GIB:.1f} GiB" if machine_bytes else "its machine's"
    if largest is None:
        return OutOfMemoryError(
            f"{who} was killed for lack of memory ({machine} were full); free some, or lower "
            f"{_PARTS[0][2]}"
        )
    name, settings = _part(largest.command)
    advice = f"lower {settings}" if settings else "end it, or use a machine with more memory"
    return OutOfMemoryError(
        f"{who} was killed for lack of memory: {name} was the largest process and held"
        f" {largest.bytes / GIB:.1f} of {machine}; {advice}"
    )


def _part(command: str) -> tuple[str, str]:
    for sign, name, settings in _PARTS:
        if sign in command:
            return name, settings
    words = command.split()
    return (words[0].rsplit("/", 1)[-1] if words else "another process"), ""
