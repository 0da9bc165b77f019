"""Whether what the documents of a deployment name is there: in them, or in the documentation."""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from scripts.deploy.documents import ROOT, Document, Pod, named, of_kind, pods

_SECRET = re.compile(r"create secret generic (\S+)((?:\s+--from-(?:literal|file)=\S+)+)")
_TAGGED = re.compile(r"[\w./-]+:[\w][\w.-]*")
GUIDE = ROOT / "docs" / "kubernetes.md"


def problems(found: Sequence[Document]) -> list[str]:
    """A line for each name that leads nowhere, and for each pod that is not as all are to be."""
    lines: list[str] = []
    for pod in pods(found):
        lines += [f"{pod.where}: {line}" for line in _pod_problems(pod, found)]
    for document in found:
        lines += [f"{named(document)}: {line}" for line in _selects(document, pods(found))]
    return lines


def documented_secrets() -> dict[str, set[str]]:
    """Secrets that the guide has somebody make, with their keys; none is in the tree."""
    text = GUIDE.read_text(encoding="utf-8").replace("\\\n", " ")
    return {
        name: {word.split("=")[1] for word in words.split()}
        for name, words in _SECRET.findall(text)
    }


def _pod_problems(pod: Pod, found: Sequence[Document]) -> Iterator[str]:
    accounts = [each["metadata"]["name"] for each in of_kind(found, "ServiceAccount")]
    if pod.spec.get("serviceAccountName") not in accounts:
        yield f"no service account {pod.spec.get('serviceAccountName')}"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "it gets a token of Kubernetes"
    if pod.spec.get("securityContext", {}).get("runAsNonRoot") is not True:
        yield "it may run as root"
    yield from _volumes(pod, found)
    for container in pod.containers:
        for line in _container(container, found):
            yield f"{container['name']}: {line}"


def _volumes(pod: Pod, found: Sequence[Document]) -> Iterator[str]:
    volumes = {each["name"]: each for each in pod.spec.get("volumes", [])}
    there = {*volumes, *pod.claims}
    mounted = {m["name"] for c in pod.containers for m in c.get("volumeMounts", [])}
    yield from (f"it mounts no volume: {name}" for name in sorted(mounted - there))
    yield from (f"nothing mounts volume {name}" for name in sorted(there - mounted))
    for volume in volumes.values():
        if (map_ := volume.get("configMap")) and _data(found, map_["name"]) is None:
            yield f"no ConfigMap {map_['name']}"
        claims = [each["metadata"]["name"] for each in of_kind(found, "PersistentVolumeClaim")]
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim is not None and claim not in claims:
            yield f"no PersistentVolumeClaim {claim}"
        secret = volume.get("secret", {}).get("secretName")
        if secret is not None and secret not in documented_secrets():
            yield f"Secret {secret} is made by no command of {GUIDE.name}"


def _container(container: dict[str, Any], found: Sequence[Document]) -> Iterator[str]:
    if not _TAGGED.fullmatch(container["image"]) or container["image"].endswith(":latest"):
        yield f"image {container['image']} has no tag"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
        yield "it requests no CPU or memory"
    if "memory" not in resources.get("limits", {}):
        yield "its memory has no limit"
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield "it may gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "it keeps capabilities"
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind, {})
        port = probe.get("httpGet", probe.get("grpc", {})).get("port")
        if port is not None and port not in ports and port not in ports.values():
            yield f"{kind} asks port {port}, which it does not have"
    yield from _environment(container, found)


def _environment(container: dict[str, Any], found: Sequence[Document]) -> Iterator[str]:
    before: set[str] = set()
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference and reference["key"] not in documented_secrets().get(reference["name"], ()):
            yield (
                f"{variable['name']}: Secret {reference['name']}, key {reference['key']} is made by"
                f" no command of {GUIDE.name}"
            )
        value = variable.get("value", "")
        for name in re.findall(r"\$\((\w+)\)", value):
            if name not in before:
                yield f"{variable['name']} is made of {name}, which does not stand before it"
        if "://" in value:
            address = urlsplit(re.sub(r"\$\(\w+\)", "x", value))
            ports = [
                port["port"]
                for service in of_kind(found, "Service")
                if service["metadata"]["name"] == address.hostname
                for port in service["spec"]["ports"]
            ]
            if address.port not in ports:
                yield f"{variable['name']}: no Service answers at {address.netloc}"
        before.add(variable["name"])


def _selects(document: Document, templates: Sequence[Pod]) -> Iterator[str]:
    """Selectors that meet no pod, and ports that the pods met do not have."""
    spec = document.get("spec", {})
    match document["kind"]:
        case "Service":
            met = [pod for pod in templates if spec["selector"].items() <= pod.labels.items()]
            if len(met) != 1:
                yield f"its selector meets {len(met)} kinds of pods"
            names = {port.get("name") for pod in met for port in _ports(pod)}
            for port in spec["ports"]:
                if port["targetPort"] not in names:
                    yield f"its pods have no port {port['targetPort']}"
        case "Deployment" | "StatefulSet":
            labels = spec["template"]["metadata"]["labels"]
            if not spec["selector"]["matchLabels"].items() <= labels.items():
                yield "its selector does not meet its own pods"
        case "PodDisruptionBudget":
            if not _met(spec["selector"], templates):
                yield "its selector meets no pod"
        case "NetworkPolicy":
            yield from _policy(spec, templates)


def _policy(spec: dict[str, Any], templates: Sequence[Pod]) -> Iterator[str]:
    own = _met(spec["podSelector"], templates)
    if not own:
        yield "it is for no pod"
    for rule in spec.get("ingress", []):
        yield from _peers(rule["from"], templates)
        yield from _closed(rule, own)
    for rule in spec.get("egress", []):
        yield from _peers(rule["to"], templates)
        ours = [peer for peer in rule["to"] if peer.keys() == {"podSelector"}]
        yield from _closed(rule, [p for peer in ours for p in _met(peer["podSelector"], templates)])


def _peers(peers: Sequence[dict[str, Any]], templates: Sequence[Pod]) -> Iterator[str]:
    for peer in peers:
        if peer.keys() == {"podSelector"} and not _met(peer["podSelector"], templates):
            yield f"no pod is {peer['podSelector']}"


def _closed(rule: dict[str, Any], met: Sequence[Pod]) -> Iterator[str]:
    """Ports of a rule that none of the pods listens on."""
    ports = {port["containerPort"] for pod in met for port in _ports(pod)}
    for port in rule.get("ports", []):
        if met and port["port"] not in ports:
            yield f"port {port['port']} is none of its pods'"


def _ports(pod: Pod) -> list[dict[str, Any]]:
    return [port for container in pod.containers for port in container.get("ports", [])]


def _met(selector: dict[str, Any], templates: Sequence[Pod]) -> list[Pod]:
    def fits(pod: Pod) -> bool:
        return selector.get("matchLabels", {}).items() <= pod.labels.items() and all(
            pod.labels.get(each["key"]) in each["values"]
            for each in selector.get("matchExpressions", [])
        )

    return [pod for pod in templates if fits(pod)]


def _data(found: Sequence[Document], name: str) -> dict[str, str] | None:
    """Of a ConfigMap."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
    return maps.get(name)
