#!/usr/bin/env bash
# Everything that is to be measured on a GPU; --small: a trial without one. SECTIONS names some of
# score, sample (each under ten minutes) and train (under five), by default all. Results go to $OUT,
# by default benchmarks/results: gpu.txt, gpu_train.txt and gpu_sample.txt. PYTHON names the
# interpreter, which needs torch with CUDA, transformers, tokenizers, accelerate, nltk, numpy and
# pydantic, for training and sampling peft and safetensors, and bitsandbytes for the parts in 4
# bits; citepipe itself need not be installed.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
out="${OUT:-$here/results}"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    python="$here/../.venv/bin/python"
    [ -x "$python" ] || python=python3
fi
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"

# A section per program, each with a file of its own and a limit of its own.
for section in ${SECTIONS:-score train sample}; do
    case "$section" in
        score) timeout 540 "$python" "$here/gpu_score.py" "$@" --out "$out/gpu.txt" ;;
        train) timeout 300 "$python" "$here/gpu_train.py" "$@" --out "$out/gpu_train.txt" ;;
        sample) timeout 580 "$python" "$here/gpu_sample.py" "$@" --out "$out/gpu_sample.txt" ;;
        *) echo "gpu.sh: no section $section" >&2; exit 2 ;;
    esac
done
