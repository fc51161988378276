#!/usr/bin/env bash
# From RAVDESS to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=ravdess
vocabulary=(--type word)

about() {
    cat <<'TEXT'
Usage: preprocess/ravdess.sh IN OUT [options]

  IN   folder with Actor_01/ to Actor_24/ (or Video_Speech_Actor_01/ and so on); songs and silent videos in it are
       passed over.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, .spk, .emo, classes.*.txt, spm.model, dict.wrd.txt, noise/,
       report.html, contact_sheet.png. No actor is in two splits; --fold NAME: published folds.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
