#!/usr/bin/env bash
# AV2vec Base from manifests to word error rates: pre-train, fine-tune for VSR, ASR and AVSR, decode the test set.
set -euo pipefail

(($# >= 2)) || { echo "usage: examples/av2vec/run.sh DATA OUT [overrides of the pre-training, e.g. dataset.max_tokens=1000]" >&2; exit 2; }
data=$(realpath -- "$1")
out=$(realpath -m -- "$2")
shift 2
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
plugin=$(realpath -- "$here/../../av_ssl")

fairseq-hydra-train --config-dir "$here/conf/pretrain" --config-name base_lrs3 \
    task.data="$data" common.user_dir="$plugin" checkpoint.save_dir="$out/pretrain" hydra.run.dir="$out/pretrain" "$@"

for modalities in video audio av; do
    fairseq-hydra-train --config-dir "$here/conf/finetune" --config-name base_433h \
        task.data="$data" task.modalities="$modalities" model.w2v_path="$out/pretrain/checkpoint_last.pt" \
        common.user_dir="$plugin" checkpoint.save_dir="$out/$modalities" hydra.run.dir="$out/$modalities"
    fairseq-generate "$data" --user-dir "$plugin" --task av_recognition --path "$out/$modalities/checkpoint_best.pt" \
        --gen-subset test --modalities "$modalities" --scoring wer --beam 50 --max-len-a 1 --max-len-b 10 \
        --max-tokens 2000 --results-path "$out/$modalities/decode"
    tail -n 1 "$out/$modalities/decode/generate-test.txt"
done
