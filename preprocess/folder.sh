#!/usr/bin/env bash
# From a folder of talking-face videos to everything that training needs. Can be killed and started again.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: preprocess/folder.sh IN OUT [options]

  IN   folder of videos with sound (mp4, mpg, avi, mkv, mov, webm, ...), searched with its subfolders.
       A text file of the same name beside a video is its transcript, e.g. talk/001.mp4 and talk/001.txt.
       Folders named train (pretrain, trainval), valid or test decide the split.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, spm.model, dict.wrd.txt, noise/, report.json,
       contact_sheet.png.

  --workers N      processes for cropping (default: one a core)
  --size N         side of the mouth crops in pixels (default: 96)
  --stride N       find landmarks on every N-th frame (default: 1)
  --vocab-size N   sentencepiece pieces (default: 1000)
  --vocab-type T   unigram: pieces of words (default); word: whole words, for a closed vocabulary
  --valid F        share of validation clips where no folder decides (default: 0.05)
  --test F         share of test clips where no folder decides (default: 0.05)
  --seed N         of the random choices (default: 0)
  --labelled N     also make OUT/labelled_N, with N transcribed training clips
TEXT
}

fail() {
    printf 'folder.sh: %s\n' "$1" >&2
    exit 2
}

crop=() manifest=() vocabulary=() noise=() folders=()
while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --workers | --size | --stride | --vocab-size | --vocab-type | --valid | --test | --seed | --labelled)
            (($# > 1)) || fail "$1 needs a value"
            case $1 in
                --workers | --size | --stride) crop+=("$1" "$2") ;;
                --vocab-size) vocabulary+=(--size "$2") ;;
                --vocab-type) vocabulary+=(--type "$2") ;;
                --seed) manifest+=("$1" "$2") noise+=("$1" "$2") ;;
                *) manifest+=("$1" "$2") ;;
            esac
            shift 2
            ;;
        --) shift; folders+=("$@"); break ;;
        --*) usage >&2; fail "unknown option $1" ;;
        *) folders+=("$1"); shift ;;
    esac
done
((${#folders[@]} == 2)) || { usage >&2; fail "IN and OUT are needed"; }
source_folder=${folders[0]}
out=${folders[1]}

# The command of the environment that is active, else of the one that `make install` made beside this script.
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if command -v av-ssl >/dev/null; then
    av_ssl=(av-ssl)
elif [[ -x $here/../.venv/bin/python ]]; then
    av_ssl=(env "PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH}" "$here/../.venv/bin/python" -m av_ssl.cli)
else
    fail "av-ssl is not on the PATH; activate the environment or run make install"
fi

"${av_ssl[@]}" crop ${crop[@]+"${crop[@]}"} -- "$source_folder" "$out"
"${av_ssl[@]}" manifest ${manifest[@]+"${manifest[@]}"} -- "$source_folder" "$out"
shopt -s nullglob
transcripts=("$out"/{,labelled_*/}train.wrd*)
if ((${#transcripts[@]})); then
    "${av_ssl[@]}" vocabulary ${vocabulary[@]+"${vocabulary[@]}"} -- "$out"
else
    printf '%s: no complete transcripts, so no vocabulary is made\n' "$out"
fi
"${av_ssl[@]}" noise ${noise[@]+"${noise[@]}"} -- "$out"
