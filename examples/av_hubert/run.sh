#!/usr/bin/env bash
# AV-HuBERT's iterations: clusters of MFCC, training, clusters of what was learned, training from scratch, and so on.
set -euo pipefail

about() {
    cat <<'TEXT'
Usage: examples/av_hubert/run.sh DATA OUT [options] [-- overrides of every training, e.g. dataset.max_tokens=2000]

  DATA  folder with {train,valid}.tsv, as preprocess/ makes it
  OUT   receives labels1, iteration1, labels2, ...; OUT/iteration5/checkpoint_last.pt is the model
        The same command continues a killed run.

  --corpus lrs3|vox   schedule for 433 h or for 1,759 h (default: lrs3)
  --iterations N      how many, at most 5 (default: 5)
  --gpus N            of this machine; updates stay those of the recipe, by accumulation; 0: CPU (default: 1)
  --updates N         of an iteration, for a trial (default: the recipe's, 400,000 or 800,000)
  --clusters K,...    of each iteration (default: 100,100,500,1000,2000)
  --layers L,...      of the model before, clustered in iterations 2 to 5 (default: 9,12,12,12)
  --fit-share S       share of the clips that k-means is fitted to (default: 0.1)
  --print             print the commands only
TEXT
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../train.sh
source "$here/../train.sh"
positional=() overrides=()
corpus=lrs3 iterations=5 gpus=1 updates='' clusters=100,100,500,1000,2000 layers=9,12,12,12 fit_share=0.1 print=''
while (($#)); do
    case $1 in
        -h | --help)
            about
            exit
            ;;
        --corpus | --iterations | --gpus | --updates | --clusters | --layers | --fit-share)
            (($# >= 2)) || fail "$1 needs a value"
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift 2
            ;;
        --print) print=yes && shift ;;
        --) shift && overrides=("$@") && break ;;
        -*) fail "unknown option $1; see --help" ;;
        *) positional+=("$1") && shift ;;
    esac
done
((${#positional[@]} == 2)) || { about >&2 && exit 2; }
[[ -d ${positional[0]} ]] || fail "${positional[0]}: there is no such folder"
[[ $corpus == lrs3 || $corpus == vox ]] || fail "--corpus is $corpus; take lrs3 or vox"
is_count "$iterations" && ((iterations >= 1 && iterations <= 5)) || fail "--iterations is $iterations; take 1 to 5"
is_count "$gpus" || fail "--gpus is $gpus; take a number of GPUs, 0 for the CPU"
is_count "${updates:-1}" || fail "--updates is $updates; take a number"
IFS=, read -ra clusters <<<"$clusters"
IFS=, read -ra layers <<<"$layers"
((${#clusters[@]} >= iterations)) || fail "--clusters names ${#clusters[@]} numbers for $iterations iterations"
((${#layers[@]} >= iterations - 1)) || fail "--layers names ${#layers[@]} layers for $((iterations - 1)) models"

data=$(realpath -- "${positional[0]}")
out=$(realpath -m -- "${positional[1]}")
plugin=$(realpath -- "$here/../../av_ssl")
if ((gpus)); then
    device=cuda hardware=("distributed_training.distributed_world_size=$gpus")
else
    device=cpu hardware=(distributed_training.distributed_world_size=1 common.cpu=true common.fp16=false)
fi

length=()
[[ -z $updates ]] || length=( # 8 % of it for the warm-up, as in all recipes
    "optimization.max_update=$updates" "lr_scheduler.total_num_update=$updates"
    "lr_scheduler.warmup_updates=$((updates * 8 / 100))"
)

# Makes the labels of an iteration; the command itself knows what is done already.
cluster() {
    local iteration=$1 source=(--label-name mfcc)
    ((iteration == 1)) || source=(
        --checkpoint "$out/iteration$((iteration - 1))/checkpoint_last.pt"
        --layer "${layers[iteration - 2]}" --device "$device"
    )
    run av-ssl targets clusters "$data" --out "$out/labels$iteration" --clusters "${clusters[iteration - 1]}" \
        --fit-share "$fit_share" "${source[@]}"
}

for ((iteration = 1; iteration <= iterations; iteration++)); do
    cluster "$iteration"
    train "$out/iteration$iteration" "iteration $iteration" --config-dir "$here/conf/pretrain" \
        --config-name "base_${corpus}_iter$iteration" task.data="$data" task.label_dir="$out/labels$iteration"
done
