"""Online DPO with the Online Merging Optimizer on one page: one process, nothing hidden.

    python examples/online_dpo_one_page.py                        a tiny model, made here: 30 s
    python examples/online_dpo_one_page.py --models POLICY BASE
    python examples/online_dpo_one_page.py --replay runs/first/online_dpo

The rest of this repository does the same on many machines at once: vLLM samples, a service scores,
queues carry, and nothing is lost when something dies. `--replay` shows that it is the same: it
trains on the rollouts that such a run recorded (record=true) and compares the weights.
"""

import argparse
import copy
import os
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from orchestrator.jobs.replay_dpo import ReplayDPO
from services.data.chat import encode_answer, load_tokenizer, render_prompt
from services.data.settings import TokenizerSettings
from services.data.tokenizer import train_tokenizer
from services.learner.jobs.settings import OnlineDPOSettings
from services.learner.losses.dpo import dpo_loss
from services.learner.model.load import load_policy, new_model
from services.learner.model.packing import PrefixGroup
from services.learner.model.policy import Policy
from services.learner.model.reference import pair_logprobs
from services.learner.model.shape import ModelShape
from services.learner.model.special import special_ids
from services.learner.online.learner import planned_steps
from services.learner.online.rollouts import read_rollouts, rollouts_in
from services.learner.optim.build import make_optimizer, set_lr
from services.learner.optim.schedule import lr_factor
from services.learner.train.batches import plan_batches
from services.learner.train.encoding import EncodedPair, sampled_pairs
from services.pairs.select import Selection, select

NUMBERS = {"two": 2, "three": 3, "four": 4}
WORDS = {
    "fruits": ["apple", "fig", "pear", "plum", "cherry", "lemon"],
    "animals": ["cat", "dog", "fox", "hen", "owl", "pig"],
    "colours": ["red", "blue", "green", "black", "white", "pink"],
}
PROMPTS = [f"name {number} {kind}" for number in NUMBERS for kind in WORDS]
SHAPE = ModelShape(hidden_size=64, layers=2, heads=4, intermediate_size=128, initializer_range=0.06)
SAMPLING = {"do_sample": True, "top_k": 0, "num_return_sequences": 8, "max_new_tokens": 12}
OPTIMIZER = {"kind": "ondare", "lr": 2e-4, "reserve": 0.2, "rescale": True, "alpha": 1e-6}
TRAIN = {"optimizer": OPTIMIZER, "schedule": {"kind": "constant"}, "batch_size": 16, "epochs": 4}
EPISODES = {"count": 20, "prompts": 48}
SETTINGS = OnlineDPOSettings.model_validate({"policy": "", "episodes": EPISODES, "train": TRAIN})
Run = OnlineDPOSettings | ReplayDPO


def online_dpo(learner: "Learner", tokenizer: Any) -> None:
    """The algorithm. Every episode samples from the policy that the one before it made."""
    rng = random.Random(learner.seed)
    for episode in range(1, learner.run.episodes.count + 1):
        prompts = rng.choices(PROMPTS, k=learner.run.episodes.prompts)
        groups = sample(learner.policy, tokenizer, prompts)
        scored = [pair(tokenizer, *group) for group in zip(prompts, groups, strict=True)]
        pairs = [best_worst for best_worst, _ in scored if best_worst is not None]
        loss = learner.train(episode, pairs)
        mean = sum(mean for _, mean in scored) / len(scored)
        print(f"episode {episode:2}: reward {mean:.3f}, {len(pairs)} pairs, loss {loss:.3f}")


def sample(policy: Policy, tokenizer: Any, prompts: list[str]) -> Any:
    """Token ids [prompts][answers][tokens]; the one that ended an answer, if one did, is in it."""
    ends, pad = special_ids(tokenizer)
    ids = {"input_ids": [encoded(tokenizer, prompt) for prompt in prompts]}
    asked = tokenizer.pad(ids, padding_side="left", return_tensors="pt")
    with policy.generating() as model:
        rows = model.generate(**asked, **SAMPLING, eos_token_id=ends, pad_token_id=pad)
    groups = rows[:, asked["input_ids"].shape[1] :].unflatten(0, (len(prompts), -1)).tolist()
    for answer in (answer for group in groups for answer in group):
        end = next((at for at, token in enumerate(answer) if token in ends), len(answer))
        del answer[end + 1 :]  # padding
    return groups


def pair(tokenizer: Any, prompt: str, group: list[list[int]]) -> tuple[EncodedPair | None, float]:
    """The best and the worst answer of a group, None where no two differ; and its mean reward."""
    texts = tokenizer.batch_decode(group, skip_special_tokens=True)
    scores = [reward(prompt, text) for text in texts]
    mean, two = sum(scores) / len(scores), select(scores, texts, min_margin=0.0, seed=0)
    if not isinstance(two, Selection):
        return None, mean
    ids, best, worst = encoded(tokenizer, prompt), group[two.chosen], group[two.rejected]
    return EncodedPair(prompt, ids, best, worst), mean


class Learner:
    """The policy, its frozen reference, and the optimizer that merges every step with tau_r."""

    def __init__(self, policy: Any, reference: Any, base: Any, run: Run, seed: int) -> None:
        self.run, self.seed = run, seed
        self.policy, self.reference = Policy(policy, "float32"), Policy(reference, "float32")
        self.weights = self.policy.named_parameters()
        start, end = dict(base.named_parameters()), self.reference.named_parameters()
        tau = {name: (end[name] - start[name]).detach() for name in end}  # reference - base
        self.optimizer = make_optimizer(self.weights, run.train.optimizer, tau=tau, seed=seed)

    def train(self, episode: int, pairs: list[EncodedPair]) -> float:
        """DPO on an episode's pairs; returns the mean loss."""
        run, train, key, losses = self.run, self.run.train, (self.seed, episode), [0.0]
        batches = plan_batches(
            len(pairs), train.batch_size, epochs=train.epochs, key=key, max_steps=train.max_steps
        )
        frozen = [[float(x.sum()) for x in pair_logprobs(self.reference, each)] for each in pairs]
        for number, batch in enumerate(batches):
            done, steps = episode - 1 + number / len(batches), planned_steps(run)
            factor = lr_factor(train.schedule, done * steps, run.episodes.count * steps)
            set_lr(self.optimizer, train.optimizer.lr * factor)
            # In the learner's order: float32 sums come out the same to the last bit.
            batch = sorted(batch, key=lambda at: (-pairs[at].group().tokens, at))
            ours = self.policy.logprobs([pairs[at].group() for at in batch]).summed().view(-1, 2)
            theirs = torch.tensor([frozen[at] for at in batch])  # of chosen and rejected, in nats
            result = dpo_loss(ours[:, 0], ours[:, 1], theirs[:, 0], theirs[:, 1], run.dpo)
            self.optimizer.zero_grad()
            result.loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(self.weights.values(), train.clip_norm)
            self.optimizer.step()  # Adam's step, merged: optim/omo.py, optim/merging.py
            losses.append(float(result.loss.detach().mean()))
        return sum(losses) / max(1, len(batches))


def replay(folder: Path) -> None:
    """Train on what a distributed run recorded, and compare the weights with the run's own."""
    run = ReplayDPO.model_validate({"rollouts": str(folder)})
    torch.set_num_threads(run.train.threads or os.cpu_count() or 1)  # sums are cut by threads
    policy, reference = load_policy(run.policy), load_policy(run.reference or run.policy)
    base = load_policy(run.base or run.reference or run.policy)  # AdamW has none, and no use of it
    learner = Learner(policy, reference, base, run, run.seed)
    for episode in range(1, run.episodes.count + 1):
        pairs, _ = sampled_pairs(read_rollouts(rollouts_in(folder), episode), run.train.max_length)
        print(f"episode {episode:2}: {len(pairs)} pairs, loss {learner.train(episode, pairs):.3f}")
    theirs = load_file(folder / "model.safetensors")
    apart = max(float((learner.weights[n].data - v).norm() / v.norm()) for n, v in theirs.items())
    print(f"weights: {apart:.1e} from the run's own, by norm, in the tensor where they differ most")


def encoded(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt, up to where its answer begins."""
    return render_prompt(tokenizer, [{"role": "user", "content": prompt}])[1]


def reward(prompt: str, answer: str) -> float:
    """Different right words over all words, or over those asked for if they are more: 0 to 1."""
    _, number, kind = prompt.split()
    words = answer.split()
    return len(set(words) & set(WORDS[kind])) / max(len(words), NUMBERS[number])


def tiny_models(seed: int) -> tuple[Any, Any, Any]:
    """A tokenizer, a policy tuned on demonstrations of mixed quality, and the base it was."""
    rng, everything = random.Random(seed), [word for words in WORDS.values() for word in words]
    tokenizer = train_tokenizer([*PROMPTS, *everything], TokenizerSettings(vocab_size=400))
    base, tuned = (new_model(SHAPE, tokenizer, seed) for _ in range(2))
    policy = Policy(tuned, "float32")
    optimizer = torch.optim.AdamW(policy.named_parameters().values(), lr=3e-3)
    for _ in range(100):
        groups = []
        for prompt in rng.choices(PROMPTS, k=20):
            _, number, kind = prompt.split()
            count = rng.choice([NUMBERS[number], rng.randint(1, 5)])
            words = [rng.choice(rng.choice([WORDS[kind], everything])) for _ in range(count)]
            answer = encode_answer(tokenizer, " ".join(words))
            groups.append(PrefixGroup(encoded(tokenizer, prompt), [answer]))
        optimizer.zero_grad()
        (-policy.logprobs(groups).values.mean()).backward()
        optimizer.step()
    return tokenizer, tuned, base


def main() -> None:
    """See the top of the page."""
    parser = argparse.ArgumentParser(description="Online DPO with OMO, on one page.")
    parser.add_argument("--models", nargs=2, metavar=("POLICY", "BASE"), help="folders")
    parser.add_argument("--replay", type=Path, help="the artifact of a run with record=true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    if asked.replay:
        replay(asked.replay)
        return
    if asked.models:
        reference, base = map(load_policy, asked.models)
        tokenizer = load_tokenizer(asked.models[0])
    else:
        torch.set_num_threads(1)  # more of them only wait for each other on matrices this small
        tokenizer, reference, base = tiny_models(asked.seed)
    online_dpo(Learner(copy.deepcopy(reference), reference, base, SETTINGS, asked.seed), tokenizer)


if __name__ == "__main__":
    main()
