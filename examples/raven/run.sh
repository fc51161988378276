#!/usr/bin/env bash
# RAVEn Base from manifests to word error rates: pre-train, fine-tune for VSR and ASR, average, decode the test set.
set -euo pipefail

(($# >= 2)) || { echo "usage: examples/raven/run.sh DATA OUT [overrides of the pre-training, e.g. dataset.max_tokens=1200]" >&2; exit 2; }
data=$(realpath -- "$1")
out=$(realpath -m -- "$2")
shift 2
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
plugin=$(realpath -- "$here/../../av_ssl")

fairseq-hydra-train --config-dir "$here/conf/pretrain" --config-name base_lrs3 \
    task.data="$data" common.user_dir="$plugin" checkpoint.save_dir="$out/pretrain" hydra.run.dir="$out/pretrain" "$@"

for task in vsr:video asr:audio; do
    folder=$out/${task%:*}
    fairseq-hydra-train --config-dir "$here/conf/finetune" --config-name "${task%:*}_433h_base_lrs3" \
        task.data="$data" model.w2v_path="$out/pretrain/checkpoint_last.pt" \
        common.user_dir="$plugin" checkpoint.save_dir="$folder" hydra.run.dir="$folder"
    rm -f "$folder/average.pt" # of a run before
    av-ssl model average "$folder/average.pt" "$folder" --epochs 10
    fairseq-generate "$data" --user-dir "$plugin" --task av_recognition --path "$folder/average.pt" \
        --gen-subset test --modalities "${task#*:}" --scoring wer --beam 40 --ctc-weight 0.1 \
        --max-tokens 2000 --results-path "$folder/decode"
    tail -n 1 "$folder/decode/generate-test.txt"
done
