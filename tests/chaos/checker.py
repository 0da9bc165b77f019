"""What a run left, read without any of the product's code.

From the artifact of an online stage: `ledger.jsonl.gz` (what happened to each prompt),
`resume/outcomes` (what the checkpoints hold), `resume/published` (the digests of each version's
weights), `pairs.jsonl` (what was trained, and from which versions and digests),
`model.safetensors`.
"""

import gzip
import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any


def check(
    artifact: Path, episodes: int, prompts: int, paused: list[tuple[int, int, int]]
) -> dict[str, Any]:
    """Counts of what must not be, and of what was.

    `paused`: (episode, first and last millisecond) in which no prompt of it may be dispatched. A
    prompt is known by its place in the plan: the end of its id, e<episode>/p<index>.
    """
    ends: dict[str, list[str]] = defaultdict(list)
    dispatched_while_paused = restored = 0
    with gzip.open(artifact / "ledger.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            place = "/".join(event["id"].split("/")[-2:])
            if event["kind"] in ("trained", "dropped"):
                end = event["kind"] if event["kind"] == "trained" else event["detail"]
                ends[place].append(end)
            if event["kind"] == "replayed":
                ends[place] = [end for end in ends[place] if end != "DEAD_LETTER"]
            if event["kind"] == "restored":
                restored += 1
                ends[place] = [end for end in ends[place] if end == "trained"]
            if event["kind"] == "dispatched":
                at = int(event["entry_id"].split("-")[0])
                dispatched_while_paused += any(
                    number == event["episode"] and first <= at <= last
                    for number, first, last in paused
                )
    ends = {place: how for place, how in ends.items() if how}
    planned = {f"e{n:05d}/p{i:05d}" for n in range(1, episodes + 1) for i in range(prompts)}
    held: set[str] = set()
    for path in sorted((artifact / "resume" / "outcomes").iterdir()):
        held |= {"/".join(id_.split("/")[-2:]) for id_ in json.loads(path.read_text())["pairs"]}
    trained = {place for place, how in ends.items() if "trained" in how}
    used = Counter[str]()
    stale = foreign = 0
    digests = {
        int(path.stem.removeprefix("version-")): json.loads(path.read_text())
        for path in (artifact / "resume" / "published").iterdir()
    }
    for line in (artifact / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
        pair = json.loads(line)
        used[f"e{pair['episode']:05d}/p{pair['index']:05d}"] += 1
        versions = {pair["min_policy_version"], pair["max_policy_version"]}
        stale += versions != {pair["episode"] - 1}
        weights = pair["weights"]
        foreign += versions != {each["version"] for each in weights} or not all(
            each["sha256"] in digests.get(each["version"], []) for each in weights
        )
    dropped = Counter(how[0] for place, how in ends.items() if "trained" not in how)
    return {
        "prompts_planned": len(planned),
        "trained": len(trained),
        "dropped": dict(sorted(dropped.items())),
        "lost": len(planned - ends.keys()),
        "unplanned": len(ends.keys() - planned),
        "doubled": sum(len(how) > 1 for how in ends.values()) + sum(n > 1 for n in used.values()),
        "stale": stale,
        "foreign": foreign,
        "trained_not_in_checkpoint": len(trained ^ held) + len(trained - used.keys()),
        "dispatched_while_paused": dispatched_while_paused,
        "restored": restored,
        "weights": hashlib.sha256((artifact / "model.safetensors").read_bytes()).hexdigest(),
    }
