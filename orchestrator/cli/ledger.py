"""pairloop ledger verify: the proof that no prompt was lost or used twice."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from orchestrator.cli.output import table

_SHOWN = 10


@click.group()
def ledger() -> None:
    """What happened to each prompt."""


@ledger.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(folder: Path, as_json: bool) -> None:
    """Hold the ledger in FOLDER (a run's, or an online stage's) against plan, pairs and weights.

    Exit status 1 where they disagree.
    """
    from orchestrator.control.proof import ledgers_in, prove

    proofs = [prove(each) for each in ledgers_in(folder)]
    if as_json:
        click.echo(json.dumps([asdict(proof) for proof in proofs], indent=2))
    else:
        table(
            [
                {
                    "artifact": proof.artifact,
                    "episodes": proof.episodes,
                    "planned": proof.planned,
                    "trained": proof.trained,
                    "dropped": ", ".join(f"{n} {why}" for why, n in sorted(proof.dropped.items())),
                    "restored": proof.restored or None,
                    "version": proof.published,
                    "verdict": f"{len(proof.problems)} problems" if proof.problems else "clean",
                }
                for proof in proofs
            ]
        )
        for problem in (each for proof in proofs for each in proof.problems[:_SHOWN]):
            click.echo(problem)
    if any(proof.problems for proof in proofs):
        raise SystemExit(1)
