#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in under ten minutes; --small: a trial without one.
# The result is $OUT, by default benchmarks/results/gpu.txt. PYTHON names the interpreter; citepipe
# itself need not be installed in it, and bitsandbytes only for the part in 4 bits.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$here/../.venv/bin/python}"
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec timeout 600 "$python" "$here/gpu.py" --out "${OUT:-$here/results/gpu.txt}" "$@"
