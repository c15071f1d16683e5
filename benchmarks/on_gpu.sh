#!/usr/bin/env bash
# What we say of a GPU, measured in one call of at most 8 minutes. Nothing is fetched.
#
#   benchmarks/on_gpu.sh OUT DATA OLD [joint|limb]
#
# OUT: a folder to make, for a log and the figures. DATA: where utd_mhad is prepared. OLD: a checkout
# of 0fd5b87 (git worktree add OLD 0fd5b87), timed in turn. Wheels in the folder .wheels are installed
# first, without what they need. With TRY=1 all is tiny: the script is tried, on a CPU too. LIMIT: the
# seconds that it may take, 480 if not set; what matters most comes first. EPOCHS: of the training, 100
# if not set. WITHOUT="agcn tests": leaves out steps, by the first words of their names. BENCH=--alone:
# without PyTorch.
set -u
trap 'exit 130' INT
[ $# -ge 3 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
data=$(cd "$2" && pwd) && old=$(cd "$3" && pwd) && mkdir "$1" && out=$(cd "$1" && pwd) || exit 2
stream=${4:-joint}
cd "$root" || exit
exec > >(tee "$out/log.txt") 2>&1
python=${PYTHON:-python3}
export XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
if [ -d .wheels ]; then
  $python -m pip install -q --no-index --no-deps --no-compile --target "$out/site" .wheels/*.whl || exit
  export PYTHONPATH="$root:$out/site"
fi
if [ "${TRY:-}" ]; then
  settings="--config.model.variant=tiny --config.inputs.size=16 --config.sampling.test_size=16
    --config.sampling.num_frames=8 --config.sampling.test_clips=1"
  epochs=2
  posec3d="--variant=tiny --frames=8 --size=16 --rounds=2"
  agcn="--variant=tiny --frames=16 --rounds=2"
  tests=tests/training/test_losses.py
else
  settings="--config.train.dtype=bfloat16"
  epochs=${EPOCHS:-100}
  posec3d="--dtype=bfloat16 --batch_size=32 --rounds=5"
  agcn="--dtype=bfloat16 --batch_size=64 --rounds=5"
  tests="tests/models tests/skeletons tests/test_inputs.py tests/test_gradients.py
    tests/training/test_losses.py tests/training/test_optimizers.py"  # what one device can run
fi
limit=${LIMIT:-480} without=" ${WITHOUT:-} "
# Alone on its terminal a step gets Ctrl-C; elsewhere it ends with all the processes that it started.
foreground=(); [ -t 0 ] && foreground=(--foreground)
config=experiments/configs/posec3d.py:utd_mhad,$stream
failed=0

step() {  # seconds, name, command: a step that fails or takes longer does not keep the others away
  local left=$((limit - SECONDS)) name=$2 start=$SECONDS code
  [[ $without != *" ${name%% *} "* ]] || { echo "=== $name: left out"; return; }
  [ "$left" -gt 0 ] || { echo "=== $name: no time left"; failed=1; return; }
  left=$(($1 < left ? $1 : left)); shift 2
  echo "=== $name: $*"
  timeout "${foreground[@]}" -k 10 "$left" "$@"; code=$?
  echo "=== $name: exit code $code after $((SECONDS - start)) s"
  [ $code = 0 ] || failed=1
}
train() {  # work directory, epochs
  # shellcheck disable=SC2086
  $python -m experiments.posec3d --config="$config" --config.data.dir="$data" --workdir="$1" \
    --config.schedule.epochs="$2" $settings
}
export -f train; export python config data settings

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || echo "no GPU"
export JAX_COMPILATION_CACHE_DIR=$out/programs
step 220 "train $stream" bash -c "train $out/run $epochs"
step 75 "evaluate $stream" $python -m experiments.evaluate --run="$out/run"
echo "=== speed: $(tail -n 3 "$out/run/metrics.jsonl")"; cat "$out"/run/test/metrics.json
# The option without which 0fd5b87 does not compile; ours sets it itself.
step 240 posec3d env XLA_FLAGS=--xla_gpu_enable_triton_gemm=false \
  $python -m benchmarks.posec3d $posec3d ${BENCH:-} --against="$old" --out="$out/posec3d.json"
# 13 steps: what a start takes, without the cache of compiled programs and from it.
export JAX_COMPILATION_CACHE_DIR=$out/cache  # empty
for name in cold cached; do
  step 90 "one epoch, $name" bash -c "train $out/$name 1"
done
for name in a b; do
  step 60 "deterministic $name" env XLA_FLAGS=--xla_gpu_deterministic_ops=true \
    bash -c "train $out/$name 1"
done
step 20 "same bits" $python - "$out/a" "$out/b" <<'PYTHON'
import sys, jax, numpy as np
from jaxmg.training import checkpoints
a, b = (jax.tree.leaves(checkpoints.restore_variables(f"{run}/checkpoints", "latest")) for run in sys.argv[1:])
same = [np.array_equal(x, y) for x, y in zip(a, b, strict=True)]
print(f"{sum(same)} of {len(same)} arrays are equal to the bit")
sys.exit(not all(same))
PYTHON
step 90 agcn env XLA_FLAGS=--xla_gpu_enable_triton_gemm=false \
  $python -m benchmarks.agcn $agcn ${BENCH:-} --against="$old" --out="$out/agcn.json"
step 120 tests $python -m pytest -q --maxfail=20 -p no:cacheprovider $tests
rm -rf "$out"/{site,programs,cache,cold,cached,a,b}
echo "=== done after $SECONDS s"
exit $failed
