#!/usr/bin/env bash
# Create .venv from the lock. Called by make; does nothing when .venv is up to date.
#   PYTHON=python3.12 scripts/setup.sh    chooses the interpreter (3.11 or 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.installed
wanted=$(cat requirements/cpu.lock pyproject.toml scripts/setup.sh | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }
python=""
for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
    if fits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: no Python 3.11 or 3.12 found; install one or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi

say() { printf 'setup [%s/5] %s\n' "$1" "$2"; }
say 1 "environment: .venv with $("$python" --version)"
if [ ! -x .venv/bin/python ] || ! fits .venv/bin/python; then
    rm -rf .venv
    "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 2>&1 | grep -v 'WARNING: Location' || true

# uv does not read pip's setting for local wheel folders; hand it on.
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
export VIRTUAL_ENV="$PWD/.venv" UV_LINK_MODE=copy
say 2 "torch 2.13.0 and what it needs (the largest download)"
.venv/bin/uv pip install "torch==2.13.0"
say 3 "the other $(grep -c '==' requirements/cpu.lock) packages, as locked"
.venv/bin/uv pip install --no-deps --require-hashes -r requirements/cpu.lock
say 4 "pairloop itself, editable"
.venv/bin/uv pip install --no-deps --no-build-isolation --editable .
# A run starts a dozen Pythons that import thousands of files. Without bytecode each compiles them
# anew, on every run where PYTHONDONTWRITEBYTECODE is set (as container images do).
say 5 "bytecode of what is installed"
.venv/bin/python -m compileall -q -j 0 \
    -x '/(anthropic|numba|mypyc?|pip|tests?)/|/transformers/models/(?!auto/|qwen2/)' \
    .venv/lib/python3*/site-packages orchestrator services protos >/dev/null 2>&1 ||
    true # a few installed files are not of this Python
echo "$wanted" > "$stamp"
