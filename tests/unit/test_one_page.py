"""The algorithm on one page: it is the learner's, to the rounding of float32."""

import random
import re
import shutil
from pathlib import Path

import pytest
import torch

from examples import online_dpo_one_page as page
from orchestrator.artifacts.store import Artifact, finish
from services.learner.jobs.settings import OnlineDPOSettings
from services.learner.settings import AdamWSettings, ScheduleSettings, TrainSettings
from tests.unit.test_online_learner import train
from tests.unit.test_replay import recorded


def artifact(tmp_path: Path, settings: OnlineDPOSettings, folder: Path) -> Path:
    """What the stage of a run leaves, as far as a replay reads it."""
    partial = shutil.copytree(folder / "out", tmp_path / "made.partial")
    shutil.copytree(folder / "rollouts", partial / "rollouts")
    models = {
        "policy": settings.policy,
        "reference": settings.reference or settings.policy,
        "base": settings.base or settings.policy,
    }
    config = settings.model_dump(mode="json") | {"seed": 11}
    made = Artifact(kind="online_dpo", fingerprint="f", parents=models, config=config)
    finish(partial, tmp_path / "made", made)
    return tmp_path / "made"


@pytest.mark.parametrize(
    "how",
    [
        train(),
        train(optimizer=AdamWSettings(lr=1e-3, weight_decay=0.1), clip_norm=0.1),
        train(schedule=ScheduleSettings(kind="linear", warmup_steps=2), max_steps=3),
    ],
    ids=["ondare", "adamw", "linear"],
)
def test_a_replay_on_the_page_reaches_the_learners_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: TrainSettings
) -> None:
    how = how.model_copy(update={"threads": torch.get_num_threads()})
    settings, folder = recorded(tmp_path, train=how)
    page.replay(artifact(tmp_path, settings, folder))
    printed = capsys.readouterr().out
    assert re.findall(r"(\d+) pairs", printed) == ["8", "0", "7"]
    (apart,) = re.findall(r"^weights: (\S+) from", printed, re.MULTILINE)
    assert float(apart) <= 1e-6
    # And that is said of what was trained: the policy it began with is further away.
    begun = dict(page.load_policy(settings.policy).named_parameters())
    theirs = page.load_file(folder / "out" / "model.safetensors")
    assert max(float((begun[n].data - v).norm() / v.norm()) for n, v in theirs.items()) > 1e-4


def test_a_group_is_sampled_to_its_end_and_paired_by_its_reward() -> None:
    torch.manual_seed(0)
    tokenizer, policy, _ = page.tiny_models(0)
    prompts = ["name two fruits", "name four animals"]
    groups = page.sample(page.Policy(policy, "float32"), tokenizer, prompts)
    assert [len(group) for group in groups] == [8, 8]
    end = tokenizer.eos_token_id
    for answer in (answer for group in groups for answer in group):
        assert end not in answer[:-1]
        assert answer[-1] == end or len(answer) == page.SAMPLING["max_new_tokens"]
    found, mean = page.pair(tokenizer, prompts[0], groups[0])
    assert found is not None
    texts = tokenizer.batch_decode(groups[0], skip_special_tokens=True)
    scores = [page.reward(prompts[0], text) for text in texts]
    assert mean == sum(scores) / 8
    chosen, rejected = (
        page.reward(prompts[0], tokenizer.decode(answer, skip_special_tokens=True))
        for answer in (found.chosen, found.rejected)
    )
    assert (chosen, rejected) == (max(scores), min(scores))
    assert page.pair(tokenizer, prompts[0], [groups[0][0]] * 8) == (None, scores[0])


def test_the_reward_counts_different_right_words() -> None:
    assert page.reward("name two fruits", "fig pear") == 1.0
    assert page.reward("name two fruits", "fig fig") == 0.5
    assert page.reward("name two fruits", "fig cat dog pear") == 0.5
    assert page.reward("name four animals", "cat") == 0.25
    assert page.reward("name four animals", "") == 0.0
    drawn = random.Random(0).choices(page.PROMPTS, k=3)
    assert all(page.reward(prompt, "red red") <= 0.5 for prompt in drawn)
