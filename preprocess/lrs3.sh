#!/usr/bin/env bash
# From LRS3 to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=lrs3

about() {
    cat <<'TEXT'
Usage: preprocess/lrs3.sh IN OUT [options]

  IN   folder with pretrain/ID/NNNNN.{mp4,txt}, trainval/ and test/. Clips of pretrain that are longer than 15 s
       are cut at pauses.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, spm.model, dict.wrd.txt, noise/, report.html,
       contact_sheet.png.
       Its lists are those of 433 hours (pretrain and trainval); OUT/30h_data has those of 30 (trainval).
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
