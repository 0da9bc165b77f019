"""The documents of a Kubernetes deployment: built by kustomize, and the pods in them."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
Document = dict[str, Any]

OVERLAYS = tuple(
    sorted(path.parent.name for path in (KUBERAY / "overlays").glob("*/kustomization.yaml"))
)


@dataclass(frozen=True)
class Pod:
    """A template of pods."""

    where: str
    """Kind, name and part, for messages."""
    labels: dict[str, str]
    """Those of the template, and those that KubeRay adds."""
    spec: dict[str, Any]
    claims: tuple[str, ...] = ()
    """Volumes that a StatefulSet makes for each."""

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Those that start it too."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def has_kubectl() -> bool:
    """Without it no overlay can be built."""
    return shutil.which("kubectl") is not None


def built(overlay: str) -> list[Document]:
    """What `kubectl kustomize` makes of an overlay; it asks no cluster."""
    folder = KUBERAY / "overlays" / overlay
    words = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{overlay}: {done.stderr.strip()}")
    return documents(done.stdout)


def base() -> list[Document]:
    """The files of the base as they stand, with the ConfigMaps that kustomize would make."""
    folder = KUBERAY / "base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    found = [
        document
        for name in kustomization["resources"]
        for document in documents((folder / name).read_text(encoding="utf-8"))
    ]
    for made in kustomization["configMapGenerator"]:
        data = {name: (folder / name).read_text(encoding="utf-8") for name in made["files"]}
        found.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": made["name"]},
                "data": data,
            }
        )
    return found


def documents(text: str) -> list[Document]:
    """Of a YAML file or stream."""
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(found: Sequence[Document], *kinds: str) -> list[Document]:
    """Those of some kinds, in order."""
    return [each for each in found if each["kind"] in kinds]


def named(document: Document) -> str:
    """How messages call it."""
    return f"{document['kind']} {document['metadata']['name']}"


def pods(found: Sequence[Document]) -> list[Pod]:
    """Every template of pods in these documents."""
    return [pod for document in found for pod in _pods_of(document)]


def _pods_of(document: Document) -> Iterator[Pod]:
    where, spec = named(document), document.get("spec", {})
    match document["kind"]:
        case "Deployment" | "StatefulSet":
            claims = tuple(
                each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])
            )
            yield _pod(where, spec["template"], claims=claims)
        case "RayJob":
            yield _pod(f"{where}, submitter", spec["submitterPodTemplate"])
            yield from _ray_pods(where, spec["rayClusterSpec"])
        case "RayCluster":
            yield from _ray_pods(where, spec)


def _ray_pods(where: str, cluster: dict[str, Any]) -> Iterator[Pod]:
    yield _pod(f"{where}, head", cluster["headGroupSpec"]["template"], "head")
    for group in cluster["workerGroupSpecs"]:
        yield _pod(f"{where}, {group['groupName']}", group["template"], "worker")


def _pod(where: str, template: dict[str, Any], node: str = "", claims: tuple[str, ...] = ()) -> Pod:
    added = {"ray.io/node-type": node} if node else {}
    labels = template.get("metadata", {}).get("labels", {})
    return Pod(where, {**labels, **added}, template["spec"], claims)
