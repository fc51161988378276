#!/usr/bin/env bash
# From CREMA-D to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=crema_d
vocabulary=(--type word)

about() {
    cat <<'TEXT'
Usage: preprocess/crema_d.sh IN OUT [options]

  IN   folder with VideoFlash/ and, where its videos have no audio, AudioWAV/.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, .spk, .emo, classes.*.txt, spm.model, dict.wrd.txt, noise/,
       report.html, contact_sheet.png. No actor is in two splits; --fold NAME: published folds.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
