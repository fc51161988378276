# Sourced by the scripts of this folder: their options, and the four steps from videos to training data.
# A script sets `corpus`, may set `audio_only` and options of single steps, defines `about` and calls `prepare "$@"`.
# shellcheck shell=bash

crop=(--corpus "$corpus") manifest=(--corpus "$corpus") noise=()
vocabulary=(${vocabulary[@]+"${vocabulary[@]}"})

options() {
    cat <<'TEXT'

  --workers N       processes for cropping, or Slurm jobs at a time (default: one a core)
  --cluster slurm   crop by jobs of a Slurm cluster
  --slurm-partition, --slurm-hours, --slurm-cpus, --slurm-memory, --slurm-option: as in av-ssl crop --help
  --size N          side of the mouth crops in pixels (default: 96)
  --stride N        find landmarks on every N-th frame (default: 4)
  --region, --backend, --dlib-model, --landmarks, --mean-face: as in av-ssl crop --help
  --ids FILE        take only the clips whose ids FILE lists, one a line; a folder of lists also decides the splits
  --valid N         validation clips: below 1 a share, else a number (default: see docs/preprocessing.md)
  --test N          likewise test clips, where the corpus has none of its own
  --fold NAME       also make OUT/fold_NAME, a published division by speaker: see docs/preprocessing.md
  --valid-ids FILE  validation clips are those whose ids FILE lists
  --seed N          of the random choices (default: 0)
  --labelled N      also make OUT/labelled_N, with N transcribed training clips
  --vocab-size N    sentencepiece pieces (default: 1000)
  --vocab-type T    unigram: pieces of words; word: entire words, for a closed vocabulary
TEXT
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

# The command of the environment that is active, else of the one that `make install` made beside the scripts.
find_command() {
    local here
    here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
    if command -v av-ssl >/dev/null; then
        av_ssl=(av-ssl)
    elif [[ -x $here/../.venv/bin/python ]]; then
        av_ssl=(env "PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH}" "$here/../.venv/bin/python" -m av_ssl.cli)
    else
        fail "av-ssl is not on the PATH; activate the environment or run make install"
    fi
}

parse() {
    folders=()
    while (($#)); do
        case $1 in
            -h | --help) about; options; exit 0 ;;
            --) shift; folders+=("$@"); break ;;
            --*) pass_on "${@:1:2}"; shift 2 ;;
            *) folders+=("$1"); shift ;;
        esac
    done
    ((${#folders[@]} == 2)) || { { about; options; } >&2; fail "IN and OUT are needed"; }
}

# Give an option and its value to the steps that know it.
pass_on() {
    case $1 in
        --workers | --cluster | --slurm-* | --size | --stride | --region | --backend | --dlib-model | --landmarks | \
            --mean-face) crop+=("$@") ;;
        --ids) crop+=("$@") manifest+=("$@") ;;
        --valid | --test | --valid-ids | --labelled | --fold) manifest+=("$@") ;;
        --seed) manifest+=("$@") noise+=("$@") ;;
        --vocab-size) vocabulary+=(--size "${@:2}") ;;
        --vocab-type) vocabulary+=(--type "${@:2}") ;;
        *) { about; options; } >&2; fail "unknown option $1" ;;
    esac
    (($# == 2)) || fail "$1 needs a value"
}

prepare() {
    parse "$@"
    find_command
    local source_folder=${folders[0]} out=${folders[1]} transcripts
    if [[ -z ${audio_only:-} ]]; then
        "${av_ssl[@]}" crop "${crop[@]}" -- "$source_folder" "$out"
    fi
    "${av_ssl[@]}" data manifest "${manifest[@]}" -- "$source_folder" "$out"
    shopt -s nullglob
    transcripts=("$out"/{,labelled_*/,*_data/}train.wrd*)
    if ((${#transcripts[@]})); then
        "${av_ssl[@]}" data vocabulary ${vocabulary[@]+"${vocabulary[@]}"} -- "$out"
    else
        printf '%s: no complete transcripts, so no vocabulary is made\n' "$out"
    fi
    "${av_ssl[@]}" data noise ${noise[@]+"${noise[@]}"} -- "$out"
}
