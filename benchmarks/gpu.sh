#!/usr/bin/env bash
# All that is measured on one NVIDIA GPU, in under ten minutes, without internet:
#
#     bash benchmarks/gpu.sh WHEELS [OUT]
#     PYTHON=.venv/bin/python bash benchmarks/gpu.sh - [OUT]     # a Python in which all of it is installed
#     QUICK=1 PYTHON=... bash benchmarks/gpu.sh - [OUT]          # on a CPU, tiny sizes: whether the script runs
#
# The machine needs Python 3.10 to 3.13 with torch (CUDA), numpy, scipy, opencv, sentencepiece, tqdm, regex and
# tensorboard. WHEELS is a folder with wheels of the rest, made on a machine with internet, with the same Python:
#
#     python3 -m pip wheel --no-deps -w WHEELS fairseq==0.12.2 antlr4-python3-runtime==4.8 python_speech_features==0.6
#     python3 -m pip download --no-deps --only-binary=:all: -d WHEELS hydra-core==1.0.7 omegaconf==2.0.6 bitarray \
#         cffi pycparser editdistance av soundfile sacrebleu portalocker tabulate colorama lxml PyYAML \
#         pytest pluggy iniconfig packaging pygments
#
# First correctness, then tables; a table grows row by row, in OUT (default: out/gpu) and on the terminal, so that
# a run that is cut off leaves what it has. What has not begun after LIMIT seconds (default: 570) is left out.
set -euo pipefail

wheels=${1:?usage: bash benchmarks/gpu.sh WHEELS|- [OUT]}
repository=$(cd "$(dirname "$0")/.." && pwd)
out=$(realpath -m "${2:-$repository/out/gpu}")
limit=${LIMIT:-570}
python=${PYTHON:-python3}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "$wheels" != - ]; then
    wheels=$(realpath "$wheels")
    "$python" -m venv --system-site-packages --without-pip "$work/venv"
    "$python" -m pip --python "$work/venv/bin/python" install --quiet --no-index --no-deps --no-compile "$wheels"/*.whl
    python=$work/venv/bin/python
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$repository" >"$site/00_av_ssl.pth" # before the hook, which imports from it
    cp "$repository/av_ssl_fairseq_hook.pth" "$site/"
fi
python=$(realpath -s "$(command -v "$python")")
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH} PATH="$(dirname "$python"):$PATH"

if [ -n "${QUICK:-}" ]; then
    device=cpu step=(--size tiny --frames 100 --steps 1) decode=(--size tiny --clips 2 --seconds 2 --beams 2 --repeats 1)
    dtype=float32
else
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
        echo "torch finds no GPU; QUICK=1 tries the script on a CPU" >&2
        exit 1
    }
    device=cuda step=(--size base --frames 1000 --steps 10 --warmup 3)
    decode=(--size base --clips 16 --seconds 4 --beams 1 10 40 --repeats 3)
    dtype=bfloat16
fi
failed=0

# run NAME COMMAND...: its output goes to the terminal and to OUT/NAME.txt
run() {
    local name=$1 left=$((limit - SECONDS))
    shift
    if [ "$left" -lt 10 ]; then
        echo "$name: left out, ${limit} s are over"
        return
    fi
    echo "== $name ($SECONDS s): $*"
    if ! timeout "$left" "$@" 2>"$out/$name.err" | tee "$out/$name.txt"; then
        failed=1
        echo "$name: FAILED or cut off"
        tail -n 15 "$out/$name.err"
    fi
}

run losses "$python" "$repository/benchmarks/training_step.py" --check --device "$device" "${step[@]:0:4}"
# Steps in half precision, and a run of the stock command that is resumed bit for bit; skipped without a GPU.
run tests "$python" -m pytest -q -p no:cacheprovider -c "$repository/pyproject.toml" --rootdir "$repository" -k gpu \
    "$repository/tests/methods/test_gpu.py" "$repository/tests/tasks/test_pretraining.py"
for method in av_hubert av2vec raven distillav; do
    run "step_$method" "$python" "$repository/benchmarks/training_step.py" --method "$method" --device "$device" \
        --dtype "$dtype" --json "$out/step_$method.json" "${step[@]}"
done
run decoding "$python" "$repository/benchmarks/decoding.py" --device "$device" --dtype "$dtype" "${decode[@]}"
for method in av_hubert av2vec raven distillav; do # last: compiling takes longest
    run "compiled_$method" "$python" "$repository/benchmarks/training_step.py" --method "$method" --device "$device" \
        --dtype "$dtype" --only torch.compile "${step[@]}"
done
echo "$SECONDS s; the tables are in $out"
exit "$failed"
