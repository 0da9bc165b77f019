"""Whether documents are what their schemas say, with unknown fields refused."""

import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]

from scripts.deploy.documents import Document, named

SCHEMAS = Path(__file__).resolve().parents[2] / "tests" / "schemas"
KUBERNETES = ("1.30", "1.34")
"""The oldest and the newest that the documents are written for."""
UNCHECKED = ("ResourceFlavor", "ClusterQueue", "LocalQueue")
"""Kueue's, whose schemas are not here."""
_LONGEST = 200


def problems(found: Sequence[Document]) -> list[str]:
    """A line for each place that a schema refuses."""
    lines = []
    for document in found:
        if document["apiVersion"].startswith("ray.io/"):
            lines += _kuberay(document)
        elif document["kind"] not in UNCHECKED:
            lines += _kubernetes(json.dumps(document))
    return lines


def compose_problems(compose: dict[str, Any]) -> list[str]:
    """As `problems`, of a compose file."""
    schema = json.loads((SCHEMAS / "compose" / "compose-spec.json").read_text(encoding="utf-8"))
    return _held(compose, jsonschema.Draft7Validator(schema), "compose")


@cache
def _validators() -> dict[tuple[str, str], Any]:
    found = {}
    for path in sorted((SCHEMAS / "kuberay").glob("*.json.gz")):
        schema = json.loads(gzip.decompress(path.read_bytes()))
        validator = jsonschema.Draft202012Validator(schema)
        found[schema["x-apiVersion"], schema["x-kind"]] = validator
    return found


def _kuberay(document: Document) -> list[str]:
    validator = _validators().get((document["apiVersion"], document["kind"]))
    if validator is None:
        return [f"{named(document)}: KubeRay has no {document['apiVersion']} {document['kind']}"]
    return _held(document, validator, named(document))


def _held(document: dict[str, Any], validator: Any, name: str) -> list[str]:
    return [
        f"{name}: {'/'.join(map(str, error.absolute_path))}: {error.message[:_LONGEST]}"
        for error in validator.iter_errors(document)
    ]


@cache
def _kubernetes(text: str) -> list[str]:
    """Of a document as JSON: overlays have most of theirs in common."""
    lines, document = [], json.loads(text)
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = "/".join(map(str, error.path))
            lines.append(f"{named(document)}: {place}: {error.message[:_LONGEST]} ({version})")
        except kubernetes_validate.SchemaNotFoundError as error:
            lines.append(f"{named(document)}: {error.message}")
    return lines
