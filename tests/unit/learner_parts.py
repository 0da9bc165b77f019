"""A tiny tokenizer, policy and sampled pairs for tests of the learner."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.data.chat import encode_answer, render_prompt
from services.data.settings import TokenizerSettings
from services.data.tokenizer import train_tokenizer
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.shape import ModelShape
from services.learner.online.ports import WeightVersion
from services.queues.ledger import LedgerEvent
from services.queues.settings import QueueSettings
from services.weights.manifest import Shared, changed_in

SHAPE = ModelShape(
    hidden_size=32, layers=2, heads=4, kv_heads=2, intermediate_size=64, max_positions=256
)
WORDS = ["red", "green", "blue", "one", "two", "three"]


def tokenizer() -> Any:
    return train_tokenizer([" ".join(WORDS)] * 4, TokenizerSettings(vocab_size=300))


def policy(folder: Path, seed: int = 0) -> str:
    """Export a new tiny policy; its path."""
    held = tokenizer()
    export_model(new_model(SHAPE, held, seed), held, folder)
    return str(folder)


def sampled_pair(held: Any, episode: int, index: int) -> PreferencePair:
    draw = random.Random(f"{episode}/{index}")
    words = draw.choices(WORDS, k=draw.randint(1, 5))
    _, ids = render_prompt(held, [{"role": "user", "content": " ".join(words)}])
    pair = PreferencePair(id=f"run/e{episode}/p{index}")
    pair.prompt.token_ids.extend(ids)
    pair.chosen.token_ids.extend(encode_answer(held, " ".join(words)))
    pair.rejected.token_ids.extend(encode_answer(held, " ".join(reversed(words)) + " one"))
    return pair


class FakeQueues:
    """Every episode is ready to train; what was committed is recorded."""

    def __init__(self, pairs: dict[int, list[PreferencePair]]) -> None:
        self.kept = pairs
        self.states: dict[int, str] = {}
        self.history: list[str] = []
        self.committed: dict[int, dict[str, str]] = {}
        """Dropped prompts of an episode, with the reasons."""
        self.lost = 0
        """Pairs that the counters have and the stream has not."""

    async def open(self, url: str, run: str, settings: QueueSettings, epoch: int) -> "FakeQueues":
        return self

    async def episode_state(self, episode: int) -> str:
        return self.states.get(episode, "TRAINING")

    async def look(self, episode: int) -> tuple[str, dict[str, int]]:
        state = await self.episode_state(episode)
        return state, {"paired": len(self.kept.get(episode, []))}

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        return []

    async def changed(self, seconds: float) -> None:
        await asyncio.sleep(0.01)

    async def pairs(self, episode: int) -> list[PreferencePair]:
        return self.kept[episode][self.lost :]

    async def dropped(self, episode: int) -> dict[str, str]:
        return {f"tie of {episode}": "TIE"}

    async def commit_trained(
        self, episode: int, version: int, trained: Sequence[str], dropped: Mapping[str, str]
    ) -> int:
        ids = sorted([*trained, *dropped])
        assert ids == sorted([pair.id for pair in self.kept[episode]] + [f"tie of {episode}"])
        self.committed[episode] = dict(dropped)
        self.history.append(f"trained {episode}")
        self.states[episode] = "COMPLETED"
        return len(self.kept[episode])

    async def close(self) -> None:
        self.history.append("closed")


class FakeBoard:
    """Keeps what was published; `fail_at` stops the run there, as a crash would.

    `digest`: of every version; "" as in a run without engines.
    """

    def __init__(self, history: list[str], fail_at: int | None = None, digest: str = "") -> None:
        self.versions: dict[int, WeightVersion] = {}
        self._digest = digest
        self._history, self._fail_at = history, fail_at
        self._shared: dict[str, np.ndarray] = {}

    def share(self, tensors: Iterable[tuple[str, np.ndarray]]) -> Shared:
        before, self._shared = self._shared, {name: array.copy() for name, array in tensors}
        changed = {n: changed_in(before.get(n), array) for n, array in self._shared.items()}
        return Shared(self._shared, changed)

    def __call__(self, version: WeightVersion) -> str:
        if version.version == self._fail_at:
            raise ConnectionError("the board is gone")
        self._history.append(f"published {version.version}")
        self.versions[version.version] = version
        return self._digest

    def look(self) -> None:
        """It loses nothing."""

    def weights(self, version: int) -> dict[str, np.ndarray]:
        return dict(self.versions[version].tensors)


def logits(folder: str, ids: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).logits
    return found
