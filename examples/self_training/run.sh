#!/usr/bin/env bash
# Self-training: transcribe clips that have no labels, keep the good transcripts, fine-tune on these and the real ones.
set -euo pipefail

about() {
    cat <<'TEXT'
Usage: examples/self_training/run.sh RECOGNISER UNLABELLED LABELLED ENCODER OUT [options] [-- overrides of the fine-tuning]

  RECOGNISER  fine-tuned checkpoint that transcribes, e.g. of ASR
  UNLABELLED  folder with train.tsv
  LABELLED    folder with {train,valid,test}.tsv and .wrd, dict.wrd.txt, spm.model
  ENCODER     pre-trained checkpoint that the new model starts from
  OUT         receives transcripts, data, model, decode; the same command continues a killed run

  --subset NAME           of UNLABELLED (default: train)
  --config FILE           recipe of the fine-tuning (default: examples/av2vec/conf/finetune/base_433h.yaml)
  --modalities M          video, audio or av, of the new model (default: video)
  --min-confidence C      0 to 1, of a pseudo-labelled clip (default: 0)
  --keep SHARE            of the pseudo-labelled clips, the most confident ones (default: 1)
  --beam N                of the transcription (default: 20)
  --workers N             processes that transcribe, the GPUs in turn (default: as many as --gpus, at least 1)
  --gpus N                of this machine; 0: CPU (default: 1)
  --updates N             of the fine-tuning, for a trial (default: the recipe's)
  --print                 print the commands only
TEXT
}

# Recipes of AV-HuBERT have its own keys; all of them take these from the file that they share.
has_av_hubert_keys() { grep -qs '_name: av_hubert_pretraining' "$config" "$(dirname -- "$config")/_common.yaml"; }

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../train.sh
source "$here/../train.sh"
plugin=$(realpath -- "$here/../../av_ssl")
positional=() overrides=()
subset=train config=$here/../av2vec/conf/finetune/base_433h.yaml modalities=video min_confidence=0 keep=1 beam=20
workers='' gpus=1 updates='' print=''
while (($#)); do
    case $1 in
        -h | --help)
            about
            exit
            ;;
        --subset | --config | --modalities | --min-confidence | --keep | --beam | --workers | --gpus | --updates)
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
((${#positional[@]} == 5)) || { about >&2 && exit 2; }
for file in "${positional[0]}" "${positional[3]}" "$config"; do
    [[ -f $file ]] || fail "$file: there is no such file"
done
for folder in "${positional[1]}" "${positional[2]}"; do
    [[ -d $folder ]] || fail "$folder: there is no such folder"
done
[[ $config == *.yaml ]] || fail "--config is $config; take a .yaml file"
[[ $modalities =~ ^(video|audio|av)$ ]] || fail "--modalities is $modalities; take video, audio or av"
is_count "$gpus" || fail "--gpus is $gpus; take a number of GPUs, 0 for the CPU"
is_count "${updates:-1}" || fail "--updates is $updates; take a number"

recogniser=$(realpath -- "${positional[0]}")
unlabelled=$(realpath -- "${positional[1]}")
labelled=$(realpath -- "${positional[2]}")
encoder=$(realpath -- "${positional[3]}")
out=$(realpath -m -- "${positional[4]}")
config=$(realpath -- "$config")
streams=("task.modalities=$modalities")
if has_av_hubert_keys; then
    streams=(
        "task.modalities=[${modalities/#av/audio,video}]" "task.label_dir=$out/data"
        "task.tokenizer_bpe_model=$out/data/spm.model"
    )
fi
length=()
[[ -z $updates ]] || length=("optimization.max_update=$updates")
if ((gpus)); then
    device=cuda hardware=("distributed_training.distributed_world_size=$gpus") cpu=()
else
    device=cpu hardware=(distributed_training.distributed_world_size=1 common.cpu=true common.fp16=false) cpu=(--cpu)
fi

# The lengths are those that av-ssl data pseudo-labels keeps: nothing is transcribed in vain.
run av-ssl transcribe "$recogniser" "$unlabelled" --subset "$subset" --out "$out/transcripts" --beam "$beam" \
    --min-frames 10 --max-frames 600 --device "$device" --workers "${workers:-$((gpus > 1 ? gpus : 1))}"
run av-ssl data pseudo-labels "$unlabelled" "$out/transcripts" --subset "$subset" --labelled "$labelled" \
    --min-confidence "$min_confidence" --keep "$keep" --out "$out/data"
train "$out/model" "the model" --config-dir "$(dirname -- "$config")" --config-name "$(basename -- "$config" .yaml)" \
    task.data="$out/data" "${streams[@]}" model.w2v_path="$encoder"
if [[ -f $labelled/test.wrd ]]; then
    model=$out/model/checkpoint_best.pt
    # Of a recipe that does not validate there is no best one.
    [[ -f $model || ! -f $out/model/checkpoint_last.pt ]] || model=$out/model/checkpoint_last.pt
    run fairseq-generate "$out/data" --user-dir "$plugin" --task av_recognition --path "$model" \
        --gen-subset test --modalities "$modalities" --scoring wer --beam 50 --max-len-a 1 --max-len-b 10 \
        --max-tokens 2000 --results-path "$out/decode" "${cpu[@]}"
    [[ $print ]] || tail -n 1 "$out/decode/generate-test.txt"
fi
