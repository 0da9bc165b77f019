#!/usr/bin/env bash
# Generate Python from protos/, beside each .proto. With --check: fail when what is
# committed is stale, or when buf finds a lint error.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="$PWD/.venv/bin"

generate() { # into folder $1
    (cd protos && "$bin/python" -m grpc_tools.protoc --proto_path=. --python_out="$1" \
        --pyi_out="$1" --grpc_python_out="$1" $(find pairloop -name '*.proto' | sort))
    # Only reward and admin declare services; drop the empty stubs of the others.
    grep -L '^service' $(cd protos && find pairloop -name '*.proto' -printf 'protos/%p\n') |
        sed -E 's#^protos/(.*)\.proto$#\1_pb2_grpc.py#' | (cd "$1" && xargs rm -f)
    find "$1/pairloop" -type d -exec touch {}/__init__.py \;
}

if [ "${1:-}" = --check ]; then
    (cd protos && "$bin/buf" lint)
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    generate "$fresh"
    if ! diff -r --brief --exclude='*.proto' --exclude=__pycache__ --exclude=py.typed "$fresh/pairloop" protos/pairloop; then
        echo "protos: generated code is stale; run 'make protos' and commit" >&2
        exit 1
    fi
else
    generate "$PWD/protos"
fi
