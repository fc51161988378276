#!/usr/bin/env bash
# From GRID to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=grid
vocabulary=(--type word)

about() {
    cat <<'TEXT'
Usage: preprocess/grid.sh IN OUT [options]

  IN   folder with s1/ to s34/, each with its videos, e.g. s1/bbaf2n.mpg.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, spm.model, dict.wrd.txt, noise/, report.html,
       contact_sheet.png.
       Speakers 1, 2, 20 and 22 are for test; the vocabulary holds entire words.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
