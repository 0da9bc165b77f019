import json
import socket
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from orchestrator.artifacts.store import Artifact, finish
from orchestrator.checks.preflight import check
from orchestrator.jobs.evaluate import Evaluate
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.recipe import Recipe
from services.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    LineageError,
    PairloopError,
    ResourceError,
    UnreachableError,
)
from services.reward.trial import try_function

VOCAB = {"a": 0, "b": 1}


def model(folder: Path, size: int = 4, vocab: dict[str, int] = VOCAB) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    tokenizer = {"model": {"vocab": vocab, "merges": []}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    save_file({"w": np.zeros(size, dtype=np.float32)}, folder / "model.safetensors")
    return str(folder)


def prompts(folder: Path, *lines: str, name: str = "prompts.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def online(folder: Path, **changes: object) -> OnlineDPO:
    given = {
        "policy": model(folder / "policy"),
        "base": model(folder / "base"),
        "prompts": {"path": prompts(folder, '{"prompt": "hello", "answer": "hi"}')},
        "reward": {"parts": [{"kind": "checker"}]},
        "train": {"optimizer": {"kind": "ondare"}},
        "admin": {"port": 0},
    }
    return OnlineDPO.model_validate(given | changes)


def refused(job: OnlineDPO | Recipe, kind: type[PairloopError]) -> str:
    with pytest.raises(kind) as caught:
        check(job)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_sound_job_passes(tmp_path: Path) -> None:
    check(online(tmp_path))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(online(tmp_path, policy=str(tmp_path / "empty")), ArtifactError)
    assert "'policy'" in said
    assert "no config.json" in said
    assert "no such model folder" in refused(online(tmp_path, policy="/no/where"), ArtifactError)


CONFIG = {"num_attention_heads": 2, "hidden_size": 128, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("config", "engine", "kind", "said"),
    [
        (CONFIG, {}, None, ""),
        ({"model_type": "another"}, {}, None, ""),
        (CONFIG | {"num_attention_heads": 8}, {}, ArtifactError, "no kernel for heads of 16"),
        (CONFIG | {"head_dim": 48}, {}, ArtifactError, "no kernel for heads of 48 values"),
        (CONFIG | {"head_dim": 48}, {"num_gpus": 1}, None, ""),
        # 2 x 2 layers x 2 heads x 64 values x 4 bytes x 2,048 tokens = 4 MiB.
        (CONFIG, {"kv_cache_gib": 0.0039}, ResourceError, "max_model_len=2048 tokens (it takes"),
        (CONFIG, {"kv_cache_gib": 0.004}, None, ""),
        (CONFIG | {"num_key_value_heads": 1}, {"kv_cache_gib": 0.002}, None, ""),
    ],
)
def test_a_policy_that_does_not_fit_its_engine(
    tmp_path: Path,
    config: dict[str, object],
    engine: dict[str, object],
    kind: type[PairloopError] | None,
    said: str,
) -> None:
    job = online(tmp_path, engine=engine)
    (tmp_path / "policy" / "config.json").write_text(json.dumps(config))
    if kind is None:
        check(job)
    else:
        assert said in refused(job, kind)


def test_a_bad_line_is_named_with_its_number(tmp_path: Path) -> None:
    path = prompts(tmp_path, '{"prompt": "hello"}', '{"prompt": ', name="broken.jsonl")
    said = refused(online(tmp_path, prompts={"path": path}), DataError)
    assert "broken.jsonl, line 2" in said


def test_a_prompt_without_anything_to_check_against(tmp_path: Path) -> None:
    path = prompts(tmp_path, '{"prompt": "a", "answer": "b"}', '{"prompt": "c"}', name="bare.jsonl")
    assert "prompt 2 has neither" in refused(online(tmp_path, prompts={"path": path}), DataError)
    check(online(tmp_path, prompts={"path": path}, reward={"parts": [{"kind": "missing_eos"}]}))


def test_a_reward_function_that_is_nowhere(tmp_path: Path) -> None:
    reward = {"parts": [{"kind": "function", "path": "no_such_module.at_all:score"}]}
    assert "no module 'no_such_module.at_all'" in refused(
        online(tmp_path, reward=reward), ConfigError
    )


FOUND = "def score(p, a, m):\n    return 1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FOUND, ""),
        ("from builtins import sum as total\nscore = lambda p, a, m: total([1])\n", ""),
        (f"if True:\n    {FOUND.replace('    ', '        ')}", ""),
        ("def __getattr__(name):\n    return lambda p, a, m: 1\n", ""),
        ("def score(p, a, m, messages):\n    return len(messages)\n", ""),
        ("def scores(p, a, m):\n    return 1\n", "defines no 'score'; did you mean 'scores'?"),
        ("x = 1\ndef score(:\n", "line 2: invalid syntax"),
        ("def __getattr__(name):\n    raise AttributeError\n", "score is not there"),
        ("score = 3\n", "score is not callable"),
        ("import no_such_thing\n" + FOUND, "importing {name} failed: ModuleNotFoundError: No"),
        ("def score(p, a):\n    return 1\n", "score(p, a) cannot be called: too many positional"),
        ("async def score(p, a, m):\n    return 1\n", "score is async; write it with def"),
        ("def score(p, a, m):\n    return None\n", "gave NoneType for the first prompt of"),
        ("def score(p, a, m):\n    return float('nan')\n", "gave nan for the first prompt of"),
        ("def score(p, a, m):\n    return m['no']\n", "failed on the first prompt of"),
        ("import os\ndef score(p, a, m):\n    os._exit(3)\n", "ended its process (status 3)"),
        ("def score(p, a, m):\n    raise SystemExit('no key')\n", "(status 1) when tried: no key"),
        ("def score(p, a, m):\n    return 10**400\n", "gave inf for the first prompt of"),
        # What it prints, leaves running or does at its end is its own affair.
        ("import os\ndef score(p, a, m):\n    os.write(1, b'\\xff{}')\n    return 1\n", ""),
        (f"import atexit\natexit.register(print, 'bye')\n{FOUND}", ""),
        (f"from threading import *\nThread(target=Event().wait).start()\n{FOUND}", ""),
    ],
)
def test_a_reward_function_is_looked_for_and_called_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    name = f"rewards_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    job = online(tmp_path, reward={"parts": [{"kind": "function", "path": f"{name}:score"}]})
    if said:
        assert said.replace("{name}", name) in refused(job, ConfigError)
    else:
        check(job)


def test_a_reward_function_is_called_with_the_first_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
def score(prompt, answer, metadata, messages):
    assert messages == [{"role": "user", "content": "hello"}], messages
    assert prompt.endswith("hello<|im_end|>\\n<|im_start|>assistant\\n"), prompt
    assert metadata == {"answer": "hi"} and isinstance(answer, str)
    return 1
"""
    (tmp_path / "rewards_of_the_first.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    part = {"kind": "function", "path": "rewards_of_the_first:score"}
    check(online(tmp_path, reward={"parts": [part]}))


def test_a_trial_that_proves_nothing_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def score(p, a, m):\n    return len(p.split('[INST]')[1])\n"
    (tmp_path / "rewards_of_a_template.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    part = {"kind": "function", "path": "rewards_of_a_template:score"}
    job = online(tmp_path, reward={"parts": [part]}, episodes={"prompts": 1})
    assert "failed on the first prompt of" in refused(job, ConfigError)
    (tmp_path / "policy" / "chat_template.jinja").write_text("[INST]{{ messages }}[/INST]")
    check(job)
    (warning,) = job.warnings()
    assert "failed on the first prompt of" in warning
    assert warning.endswith("(called with a prompt in ChatML; the policy's own may look otherwise)")


def test_a_trial_ends_at_its_limit_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
import os, pathlib, subprocess, time
def score(p, a, m):
    started = subprocess.Popen(["sleep", "600"])
    pathlib.Path("started").write_text(str(started.pid))
    started.wait()
"""
    (tmp_path / "rewards_without_end.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    messages = [{"role": "user", "content": "hello"}]
    found = try_function("rewards_without_end:score", messages, {}, "p", within_s=2.0)
    assert (found.of, found.said) == (
        "time",
        "reward function rewards_without_end:score gave nothing within 2 s when tried; it may be"
        " too slow for a run",
    )
    pid = int((tmp_path / "started").read_text())
    for _ in range(1000):  # a kill is not at once
        if ended(pid):
            break
        time.sleep(0.01)
    assert ended(pid)


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_folder_services_of_the_user_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "__init__.py").write_text("raise RuntimeError('another')")
    (tmp_path / "rewards_beside_services.py").write_text(FOUND)
    monkeypatch.chdir(tmp_path)
    part = {"kind": "function", "path": "rewards_beside_services:score"}
    check(online(tmp_path, reward={"parts": [part]}))


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    reward_model = model(tmp_path / "rm")
    named = {"architectures": ["Qwen2ForSequenceClassification"]}
    (tmp_path / "rm" / "config.json").write_text(json.dumps(named))
    said = refused(online(tmp_path, policy=reward_model), ArtifactError)
    assert said == f"'policy': {reward_model} is a reward model, and a policy belongs here"
    part = {"kind": "model", "path": reward_model}
    check(online(tmp_path, reward={"parts": [part]}))
    (tmp_path / "rm" / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    said = refused(online(tmp_path, reward={"parts": [part]}), ArtifactError)
    assert said.startswith("'reward.parts.0.path': ")
    assert said.endswith("is a policy, and a reward model belongs here")


def test_more_tokens_than_the_policy_has_positions(tmp_path: Path) -> None:
    job = online(tmp_path, engine={"max_model_len": 2048})
    (tmp_path / "policy" / "config.json").write_text('{"max_position_embeddings": 512}')
    assert refused(job, ConfigError) == (
        f"'engine.max_model_len': 2048 tokens are more than the 512 positions of {tmp_path}/policy;"
        " set engine.max_model_len=512 or less"
    )
    check(online(tmp_path, engine={"max_model_len": 512}, sampling={"max_tokens": 64}))


def test_prompts_without_room_for_an_answer(tmp_path: Path) -> None:
    settings = {"engine": {"max_model_len": 128}, "sampling": {"max_tokens": 120}}
    long, short = (
        '{"prompt": "' + "a b " * 8 + '", "answer": "x"}',
        '{"prompt": "a", "answer": "x"}',
    )

    def job(*lines: str) -> OnlineDPO:
        made = online(
            tmp_path, prompts={"path": prompts(tmp_path, *lines, name="lengths.jsonl")}, **settings
        )
        vocab = {"a": 0, "b": 1}
        tokenizer = Tokenizer(WordLevel(vocab))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        for folder in ("policy", "base"):
            tokenizer.save(str(tmp_path / folder / "tokenizer.json"))
        return made

    said = refused(job(long, long), DataError)
    assert "none of the first 2 prompts fits: the shortest has 16 tokens" in said
    assert "engine.max_model_len less max_tokens leaves 8" in said
    some = job(long, short)
    check(some)
    assert any(text.startswith("1 of the first 2 prompts of ") for text in some.warnings())


def test_a_folder_that_is_not_there_is_no_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "runs" / "sft")
    with pytest.raises(ArtifactError, match=r"no folder runs/stf; did you mean runs/sft\?"):
        check(online(tmp_path, policy="runs/stf"), addresses=False)
    with pytest.raises(ArtifactError, match=r"no folder runs/other \(there is a folder runs\)"):
        check(online(tmp_path, policy="runs/other"), addresses=False)
    check(online(tmp_path, policy="someone/model"), addresses=False)  # can be on the hub


def test_a_near_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "runs" / "demo" / "sft")

    def said(kind: type[PairloopError], **changes: object) -> str:
        with pytest.raises(kind) as caught:
            check(online(tmp_path, **changes), addresses=False)
        return str(caught.value)

    assert said(ArtifactError, policy="runs/demo/sff").endswith("; did you mean runs/demo/sft?")
    assert said(ArtifactError, policy="runs/demo").endswith("; models in it: runs/demo/sft")
    bare = said(ConfigError, policy="models/sft", base=None)
    assert "'models/sft' has no lineage (there is no such folder here); set base" in bare
    at = "'prompts.path': "
    assert said(DataError, prompts={"path": "promts.jsonl"}) == (
        f"{at}promts.jsonl: no such file or folder; did you mean prompts.jsonl?"
    )
    assert said(DataError, prompts={"path": "runs/prompts"}) == (
        f"{at}there is no folder runs/prompts (there is a folder runs)"
    )
    assert said(DataError, prompts={"path": "data/prompts.csv"}) == (
        f"{at}data/prompts.csv: no such file or folder"
    )


def test_weights_that_are_not_all_there(tmp_path: Path) -> None:
    job = online(tmp_path)
    weights = tmp_path / "policy" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert refused(job, ArtifactError) == (
        f"'policy': {weights} is cut short: {len(whole) - 1} of {len(whole)} bytes; fetch or copy"
        " it again"
    )
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert f"'policy': {weights} is a Git LFS pointer" in refused(job, ArtifactError)
    weights.write_bytes(whole)
    index = tmp_path / "policy" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"w": "model-2.safetensors"}}')
    assert "model-2.safetensors is missing" in refused(job, ArtifactError)


def test_an_artifact_of_several_files_is_no_source_of_rows(tmp_path: Path) -> None:
    for name in ("pairs.jsonl", "heldout.jsonl"):
        prompts(tmp_path, '{"prompt": "a", "answer": "b"}', name=name)
    job = online(tmp_path, prompts={"path": str(tmp_path)})
    (tmp_path / "prompts.jsonl").unlink()
    check(job)
    (tmp_path / "artifact.json").write_text("{}")
    assert refused(job, DataError).endswith(
        "name the one that is meant: heldout.jsonl, pairs.jsonl"
    )


def test_a_policy_that_cannot_read_messages(tmp_path: Path) -> None:
    job = online(tmp_path)
    config = tmp_path / "policy" / "tokenizer_config.json"
    config.write_text('{"chat_template": null}')
    said = refused(job, ArtifactError)
    assert said.startswith(f"'policy': the tokenizer in {tmp_path}/policy has no chat template;")
    config.write_text('{"chat_template": "{{ messages }}"}')
    check(job)
    for file in (config, tmp_path / "policy" / "tokenizer.json"):
        file.unlink()
    assert f"there is no tokenizer in {tmp_path}/policy" in refused(job, ArtifactError)


def test_answers_that_are_no_list(tmp_path: Path) -> None:
    path = prompts(
        tmp_path,
        '{"prompt": "a", "answer": ["b", 3]}',
        '{"prompt": "a", "answers": "b"}',
        name="answers.jsonl",
    )
    said = refused(online(tmp_path, prompts={"path": path}), DataError)
    assert said == f"{path}: prompt 2: 'answers' must be a list that is not empty"


def test_an_evaluation_without_room_for_prompts(tmp_path: Path) -> None:
    asked = {"path": prompts(tmp_path, '{"prompt": "a", "answer": "b"}')}
    given = {"policy": "a/b", "evaluation": {"prompts": asked, "max_tokens": 64}}
    with pytest.raises(ConfigError, match=r"evaluation\.max_tokens 64 leaves no room for a prompt"):
        check(Evaluate.model_validate(given | {"engine": {"max_model_len": 64}}), addresses=False)
    check(Evaluate.model_validate(given | {"engine": {"max_model_len": 65}}), addresses=False)


def test_an_evaluation_of_nothing() -> None:
    with pytest.raises(
        ValueError, match="there is nothing to measure on; set prompts, texts or both"
    ):
        Evaluate.model_validate({"policy": "a/b", "evaluation": {}})


def test_a_pattern_that_is_none(tmp_path: Path) -> None:
    path = prompts(tmp_path, '{"prompt": "a", "pattern": "("}', name="broken.jsonl")
    said = refused(online(tmp_path, prompts={"path": path}), DataError)
    assert "prompt 1: the pattern in its metadata is broken: missing )" in said


def test_a_reference_and_base_of_other_shapes(tmp_path: Path) -> None:
    said = refused(online(tmp_path, base=model(tmp_path / "wide", size=5)), LineageError)
    assert "tensor 'w' is (4,) in the reference and (5,) in the base" in said


def test_a_reward_model_of_another_tokenizer(tmp_path: Path) -> None:
    other = model(tmp_path / "rm", vocab={"a": 0, "c": 1})
    reward = {"parts": [{"kind": "model", "path": other}]}
    assert "tokenizer" in refused(online(tmp_path, reward=reward), LineageError)


def test_omo_without_a_base_says_what_to_set(tmp_path: Path) -> None:
    assert "'base' is missing" in refused(online(tmp_path, base=None), ConfigError)
    check(online(tmp_path, base=None, train={"optimizer": {"kind": "adamw"}}))


def test_the_base_is_found_by_lineage(tmp_path: Path) -> None:
    base = model(tmp_path / "pretrained")
    partial = tmp_path / "policy.partial"
    model(partial)
    finish(
        partial,
        tmp_path / "tuned",
        Artifact(kind="sft", fingerprint="x", parents={"policy": base}),
    )
    check(online(tmp_path, policy=str(tmp_path / "tuned"), base=None))


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(online(tmp_path, admin={"port": port}), UnreachableError)
    assert f"port {port}" in said
    assert "admin.port" in said


def test_addresses_that_do_not_answer(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queues = {"url": f"redis://:secret@127.0.0.1:{port}/0"}
    said = refused(online(tmp_path, queues=queues), UnreachableError)
    assert f"Redis at redis://127.0.0.1:{port}/0 does not answer" in said
    assert "secret" not in said
    ray = {"address": f"127.0.0.1:{port}"}
    assert "Ray does not answer" in refused(online(tmp_path, ray=ray), UnreachableError)


def test_a_kv_cache_larger_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    large = {"kv_cache_gib": 50_000, "workers": 2}
    said = refused(online(tmp_path, engine=large), ResourceError)
    assert said.startswith("engine.workers=2 x engine.kv_cache_gib=50000 is 100000 GiB of KV cache")
    check(online(tmp_path, engine=large), addresses=False)
    check(online(tmp_path, engine=large | {"num_gpus": 1}))


def test_a_new_model_that_no_engine_could_evaluate(tmp_path: Path) -> None:
    texts = {"path": prompts(tmp_path, '{"text": "some words"}', name="texts.jsonl")}
    stages = {
        "pretrain": {"job": "pretrain", "texts": texts, "model": {"hidden_size": 128, "heads": 8}}
    }
    asked = {"path": prompts(tmp_path, '{"prompt": "a", "answer": "b"}')}
    recipe = {"stages": stages, "evaluate": {"texts": texts, "prompts": asked}}
    said = refused(Recipe.model_validate(recipe), ArtifactError)
    assert said.startswith(
        "pretrain-evaluation: 'stages.pretrain.model': vLLM's CPU attention has no kernel for heads"
        " of 16"
    )
    check(Recipe.model_validate(recipe | {"engine": {"num_gpus": 1}}))


def test_what_a_stage_will_make_is_known_by_what_it_is_made_from(tmp_path: Path) -> None:
    pairs = prompts(tmp_path, '{"prompt": "a", "chosen": "b", "rejected": "c"}', name="pairs.jsonl")
    train = {"optimizer": {"kind": "adamw"}}
    offline = {"job": "offline_dpo", "policy": model(tmp_path / "policy"), "train": train}
    further = {
        "job": "online_dpo",
        "policy": "@offline",
        "train": train,
        "prompts": {"path": prompts(tmp_path, '{"prompt": "hello", "answer": "hi"}')},
        "reward": {"parts": [{"kind": "checker"}]},
    }

    def recipe(**changes: object) -> Recipe:
        stages = {"offline": offline | {"pairs": {"path": pairs}}, "online": further | changes}
        return Recipe.model_validate({"stages": stages})

    check(recipe())
    (tmp_path / "policy" / "config.json").write_text('{"max_position_embeddings": 512}')
    assert refused(recipe(), ConfigError).startswith(
        "online: 'engine.max_model_len': 2048 tokens are more than the 512 positions of"
    )
    check(recipe(engine={"max_model_len": 512}, sampling={"max_tokens": 64}))
    assert refused(recipe(policy="offline"), ConfigError) == (
        "'stages.online.policy': there is no offline; what stage offline makes is written"
        " '@offline'"
    )


def test_a_stage_that_refers_to_a_later_one() -> None:
    stage = {"job": "sft", "policy": "@base", "demonstrations": {"path": "@data/x.jsonl"}}
    job = Recipe.model_validate({"stages": {"sft": stage}})
    assert "'@base' names no earlier stage" in refused(job, ConfigError)
