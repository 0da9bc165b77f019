#!/usr/bin/env bash
# Create .venv-trl, the other side of the benchmarks: TRL as bench/requirements-trl.txt pins it,
# with our torch. Called by make bench-setup; does nothing when it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-trl/.installed
wanted=$(cat bench/requirements-trl.txt pyproject.toml scripts/bench_setup.sh | cksum)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

torch=$(.venv/bin/python -c 'import torch; print(torch.__version__.split("+")[0])')
echo "bench-setup: .venv-trl with torch $torch and $(grep '^trl==' bench/requirements-trl.txt)"
[ -x .venv-trl/bin/python ] || .venv/bin/python -m venv .venv-trl
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
export VIRTUAL_ENV="$PWD/.venv-trl" UV_LINK_MODE=copy
.venv/bin/uv pip install --quiet "torch==$torch"
.venv/bin/uv pip install --quiet --no-deps -r bench/requirements-trl.txt
echo "$wanted" > "$stamp"
