#!/usr/bin/env bash
# From LRS2 to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=lrs2

about() {
    cat <<'TEXT'
Usage: preprocess/lrs2.sh IN OUT [options]

  IN   folder with main/ID/NNNNN.{mp4,txt} and pretrain/ (or mvlrs_v1/ with both), and the owners' lists train.txt,
       val.txt, test.txt, pretrain.txt. Clips of pretrain that are longer than 15 s are cut where nobody speaks.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, spm.model, dict.wrd.txt, noise/, report.html,
       contact_sheet.png.
       Its lists hold pretrain and main; those of OUT/main_data only main.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
