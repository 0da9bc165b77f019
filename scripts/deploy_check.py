"""Hold the deployment files against their schemas and against each other, without a cluster.

    .venv/bin/python -m scripts.deploy_check

docker-compose.yml, deploy/docker/Dockerfile, and every overlay of deploy/kuberay as kubectl builds
it; where there is no kubectl, the documents of their base alone. Exit status 1 with a line for each
problem.
"""

import sys

from scripts.deploy import commands, compose, dockerfile, documents, references, schemas


def main() -> int:
    """Check all; returns the exit status."""
    lines = [f"Dockerfile: {line}" for line in dockerfile.problems()]
    lines += [f"docker-compose.yml: {line}" for line in compose.problems()]
    if documents.has_kubectl():
        for overlay in documents.OVERLAYS:
            found = documents.built(overlay)
            lines += [f"{overlay}: {line}" for line in of_overlay(found)]
        said = f"{len(documents.OVERLAYS)} overlays"
    else:
        lines += [f"base: {line}" for line in schemas.problems(documents.base())]
        said = "the base (no kubectl, which builds the overlays; install it)"
    for line in lines:
        sys.stderr.write(f"deploy: {line}\n")
    if not lines:
        sys.stdout.write(f"deploy: the image, docker-compose.yml and {said} hold\n")
    return 1 if lines else 0


def of_overlay(found: list[documents.Document]) -> list[str]:
    """The problems of the documents of one overlay."""
    return [*schemas.problems(found), *references.problems(found), *commands.problems(found)]


if __name__ == "__main__":
    sys.exit(main())
