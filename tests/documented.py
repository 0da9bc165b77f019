"""The commands of README.md and the guides, and which of them the tests run.

A command is a line of a fenced block marked sh, a line after "$ " in one marked console, and a
span of code in the text that begins like one. Every one is in RUN or in NOT_RUN.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/tutorial.md", "docs/kubernetes.md", "deploy/README.md")

RUN = ".venv/bin/python orchestrator/run.py configs/online_dpo.yaml"
ADMIN = ".venv/bin/pairloop"

DRY_RUN = f"{RUN} policy=... base=... prompts.path=prompts.jsonl --dry-run"
MISTAKE = f"{RUN} prompts.path=prompts.jsonl"
ONLINE = f"{RUN} policy=/path/to/sft base=/path/to/base prompts.path=prompts.jsonl"
FIRST = f"{RUN} policy=... base=... prompts.path=prompts.jsonl name=first"
LOOKS = (
    f'{ADMIN} episodes pause --reason "looking at the pairs"',
    f"{ADMIN} episodes resume",
    f'{ADMIN} episodes pause --reason "a look at the pairs"',
    f"{ADMIN} episodes list",
)
"""While a run is on, in this order; then `resume` again."""
WATCH = f"{ADMIN} episodes watch"
WORKERS = f"{ADMIN} workers"
VERIFY = f"{ADMIN} ledger verify runs/my-online-dpo"
REPLAY = (
    ".venv/bin/python orchestrator/run.py configs/replay_dpo.yaml"
    " rollouts=runs/first/online_dpo dpo.beta=0.3"
)
ONE_PAGE = ".venv/bin/python examples/online_dpo_one_page.py"
ONE_PAGE_REPLAY = f"{ONE_PAGE} --replay runs/first/online_dpo"
STOP_RAY = "make stop-ray"

KUSTOMIZE = "kubectl kustomize deploy/kuberay/overlays/cpu-demo"
RUN_YAML = (
    ".venv/bin/python orchestrator/run.py deploy/kuberay/overlays/cpu-demo/run.yaml"
    " output=/runs --dry-run"
)
DEPLOY_CHECK = ".venv/bin/python -m scripts.deploy_check"
SECRETS = (
    "printf 'REDIS_PASSWORD=%s\\nGRAFANA_PASSWORD=%s\\n'"
    ' "$(openssl rand -hex 24)" "$(openssl rand -hex 12)" > .env',
    "printf 'me write %s\\n' \"$(openssl rand -hex 24)\" > deploy/secrets/tokens",
)
DEPLOYMENT = (KUSTOMIZE, RUN_YAML, DEPLOY_CHECK, *SECRETS)
"""By tests/unit/test_deploy.py."""

_QWEN2 = ".venv/bin/python orchestrator/run.py configs/qwen2-"
ONE_GPU = (
    f"{_QWEN2}0.5b.yaml"
    " stages.reward_model.train.workers=1 stages.offline_dpo.train.workers=1"
    " stages.online_dpo.train.workers=1 stages.online_dpo.train.num_gpus=0.5"
    " stages.online_dpo.engine.workers=1 stages.online_dpo.engine.num_gpus=0.4"
    " stages.online_dpo.engine.gpu_memory_utilization=0.35"
    " stages.online_dpo.reward.num_gpus=0.1 --dry-run"
)
ONE_NODE = (
    f"{_QWEN2}0.5b.yaml"
    " stages.reward_model.train.workers=8 stages.offline_dpo.train.workers=8"
    " stages.online_dpo.train.workers=4 stages.online_dpo.engine.workers=3"
    " stages.online_dpo.engine.num_gpus=1 stages.online_dpo.engine.gpu_memory_utilization=0.85"
    " stages.online_dpo.reward.num_gpus=1 --dry-run"
)
THREE_NODES = (
    f"{_QWEN2}7b.yaml"
    " stages.online_dpo.engine.workers=2 stages.online_dpo.engine.num_gpus=4"
    " stages.online_dpo.engine.tensor_parallel_size=4 stages.online_dpo.reward.replicas=8 --dry-run"
)
LAYOUTS = (ONE_GPU, ONE_NODE, THREE_NODES)
"""By tests/unit/test_placement.py."""

TESTED = (
    *DEPLOYMENT,
    *LAYOUTS,
    *(DRY_RUN, MISTAKE, ONLINE, FIRST, *LOOKS, WATCH, WORKERS, VERIFY, STOP_RAY),
    *(REPLAY, ONE_PAGE, ONE_PAGE_REPLAY),
)
"""By tests/e2e/test_documented.py, small and with what is said in place of `...`."""

NOT_TESTED = {
    ".venv/bin/python -m scripts.deploy.clean_root FOLDER": "needs root and minutes",
    "make demo": "takes minutes; tests/e2e/tiny.yaml is the same recipe",
    "make test": "runs this test",
    "make chaos": "takes minutes; tests/e2e/test_chaos.py is its short form",
    "pairloop serve": "goes on until it is ended; tests/integration/test_control.py starts it",
    f"{ADMIN} doctor": "tests/integration/test_doctor.py looks at this machine",
    "ray job submit": "needs a cluster",
    "ray job stop": "needs a cluster",
    "kubectl port-forward": "needs a cluster",
    "kubectl apply": "needs a cluster",
    "kubectl cordon": "needs a cluster",
    "kubectl -n pairloop": "needs a cluster",
    "make setup GPU=": "needs a machine with GPUs; tests/unit/test_deploy.py has its choices",
    "docker": "needs docker with compose and buildx",
    "pairloop runs pause": "tests/integration/test_asked_runs.py asks the same",
    "pairloop runs stop": "tests/e2e/test_resuming.py asks the same",
    ".venv/bin/pairloop runs": "needs a cluster; tests/integration/test_control.py asks the same",
    ".venv/bin/pairloop workers scale": "needs a cluster; tests/integration/test_scaling.py scales",
    "make check": "is what CI runs",
}
"""By how they begin; and why."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_FIRST_WORDS = (
    *("make", "python", "pip", "ray", "kubectl", "docker", "git", "bash", "sh", "uv", "curl"),
    *("grpcurl", "cd", "export", "ssh", "redis-cli", "huggingface-cli", "hf", "vllm", "pytest"),
)
_NOT_SHELL = ("python", "yaml", "json")


def commands(page: str) -> list[str]:
    """In order, as one line each, comments left out."""
    found = []
    for language, text in _FENCED.findall(page):
        lines = [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines()]
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif language != "sh":
            continue
        found += [line.split(" #")[0].strip() for line in lines if line]
    text = _FENCED.sub("", page)
    spans = (" ".join(span.split()) for span in _SPAN.findall(text))
    return found + [span for span in spans if looks_like_one(span) and " " in span]


def unmarked(page: str) -> list[str]:
    """Lines that look like commands, in blocks that are not marked as holding some."""
    return [
        line
        for language, text in _FENCED.findall(page)
        if language not in ("sh", "console", *_NOT_SHELL)
        for line in text.splitlines()
        if looks_like_one(line.removeprefix("$ "))
    ]


def looks_like_one(text: str) -> bool:
    """Whether the first word is a program's, by its name or its path."""
    first = text.strip().split(" ")[0]
    return first in _FIRST_WORDS or first.endswith(("bin/python", "bin/pytest", "pairloop"))


def block(page: str, language: str, containing: str) -> str:
    """The one fenced block of a language that holds this text."""
    (found,) = [
        text for name, text in _FENCED.findall(page) if name == language and containing in text
    ]
    return str(found)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")
