"""Language modelling on rows of documents, and its last phase on longer ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from services.learner.jobs.lm import train_base
from services.learner.jobs.settings import Place, PretrainSettings
from services.learner.losses.objectives import LanguageModelling
from services.learner.model.load import new_model
from services.learner.model.packing import PrefixGroup, pack_groups
from services.learner.model.policy import Policy
from services.learner.settings import AdamWSettings, ScheduleSettings, TrainSettings
from services.learner.train.documents import pack_documents
from services.telemetry.record.events import Event, Note, TrainProgress
from tests.unit import learner_parts as parts

END = 2


def test_a_row_is_its_documents_each_by_itself() -> None:
    """Values and gradients, against one plain unpadded pass a document in the same dtype."""
    draw = torch.Generator().manual_seed(0)
    texts = [
        torch.randint(3, 250, (n,), generator=draw).tolist() for n in (5, 80, 11, 1, 40, 3, 20)
    ]
    rows = pack_documents(texts, END, 64).rows
    assert max(len(row.segments) for row in rows) > 1
    held = parts.tokenizer()
    packed = Policy(new_model(parts.SHAPE, held, 3), "float32")
    plain = new_model(parts.SHAPE, held, 3)
    loss, metrics = LanguageModelling(packed).sums(rows)
    loss.backward()
    expected, tokens = torch.zeros(()), 0
    for row in rows:
        for document in row.segments:
            ids = torch.tensor(list(document.ids))
            logits = plain(ids.unsqueeze(0)).logits[0, :-1]
            expected = expected + F.cross_entropy(logits, ids[1:], reduction="sum")
            tokens += len(ids) - 1
    expected.backward()
    assert metrics == {}
    assert tokens == sum(row.learnt for row in rows) == sum(map(len, texts))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    norm = torch.cat([p.grad.flatten() for p in plain.parameters() if p.grad is not None]).norm()
    for (name, ours), theirs in zip(
        packed.named_parameters().items(), plain.parameters(), strict=True
    ):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert (ours.grad - theirs.grad).norm() < 1e-5 * norm, name


def test_short_documents_are_not_padded_to_the_longest() -> None:
    lengths = [512, *[20] * 40, 9, 100]
    groups = [PrefixGroup((), ([5] * length,)) for length in lengths]
    calls = pack_groups(groups, torch.device("cpu")).calls
    shapes = sorted(tuple(call.queries.shape) for call in calls)
    assert shapes == [(1, 9), (1, 100), (1, 512), (40, 20)]


def extended(
    tmp_path: Path, corpus: list[str], **changes: object
) -> tuple[dict[str, float], list[Event]]:
    """A base model of ten steps on rows of 16 and one or more on rows of 64, in `tmp_path`/out."""
    parts.tokenizer().save_pretrained(tmp_path / "tokenizer")
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in corpus))
    settings = PretrainSettings.model_validate(
        {
            "model": parts.SHAPE.model_copy(update={"rope_theta": 200.0}),
            "tokenizer": str(tmp_path / "tokenizer"),
            "texts": {"path": str(path)},
            "heldout": {"path": str(path)},
            "sequence_length": 16,
            "context_extension": {"sequence_length": 64, "rope_theta": 5e4, "share": 0.2} | changes,
            "train": TrainSettings(
                optimizer=AdamWSettings(lr=1e-2),
                schedule=ScheduleSettings(kind="linear"),
                batch_size=8,
                max_steps=10,
            ),
        }
    )
    events: list[Event] = []
    metrics = train_base(settings, Place(stage="x", out=str(tmp_path / "out")), events.append)
    return metrics, events


LONG = " ".join(parts.WORDS * 12)


def notes(events: list[Event]) -> list[Note]:
    return [event for event in events if isinstance(event, Note)]


def config(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "config.json").read_text())
    return found


def test_the_last_phase_goes_on_with_schedule_and_optimizer(tmp_path: Path) -> None:
    metrics, events = extended(tmp_path, [LONG] * 3 + ["red green"] * 20)
    assert config(tmp_path)["max_position_embeddings"] == 64
    assert config(tmp_path)["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e4}
    # A fifth of ten, and the learning rate goes down over all twelve.
    assert metrics["steps"] == 12
    last = [event for event in events if isinstance(event, TrainProgress)][-1]
    assert (last.step, last.steps) == (12, 12)
    assert last.metrics["lr"] == pytest.approx(1e-2 / 12)
    said = [note.text for note in notes(events)]
    assert said[0].startswith("23 texts in ")
    assert "rows of 16 tokens" in said[0]
    assert f"{metrics['long_share']:.1%} of the tokens are in texts longer than 16," in said[1]
    assert 0.5 < metrics["long_share"] < 1.0


def test_texts_that_teach_no_longer_context_are_warned_of(tmp_path: Path) -> None:
    metrics, events = extended(tmp_path, ["red green"] * 20)
    assert metrics["long_share"] == 0.0
    (warning,) = [note for note in notes(events) if note.level == "warning"]
    assert warning.text.startswith("context extension: no text is longer than the 16 tokens of")


def test_texts_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": LONG}) + "\n")
    own = {"path": str(tmp_path / "long.jsonl")}
    metrics, events = extended(tmp_path, ["red green"] * 20, texts=own, batch_size=1)
    assert metrics["long_share"] > 0.9
    assert "context extension: 1 texts in " in notes(events)[1].text


def test_yarn_is_in_the_config_of_the_finished_model_and_in_its_heldout_loss(
    tmp_path: Path,
) -> None:
    plain, _ = extended(tmp_path, [LONG] * 3)
    trained = parts.logits(str(tmp_path / "out"), list(range(5, 60)))
    stretched, _ = extended(tmp_path, [LONG] * 3, yarn_factor=2.0)
    assert config(tmp_path)["max_position_embeddings"] == 128
    assert config(tmp_path)["rope_parameters"] == {
        "rope_type": "yarn",
        "rope_theta": 5e4,
        "factor": 2.0,
        "original_max_position_embeddings": 64,
    }
    assert stretched["loss"] == plain["loss"]
    assert stretched["heldout_loss"] != plain["heldout_loss"]
    assert not torch.equal(parts.logits(str(tmp_path / "out"), list(range(5, 60))), trained)
