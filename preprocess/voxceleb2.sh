#!/usr/bin/env bash
# From VoxCeleb2 to lists for pre-training. Can be killed and started again.
set -euo pipefail
corpus=voxceleb2

about() {
    cat <<'TEXT'
Usage: preprocess/voxceleb2.sh IN OUT [options]

  IN   folder with dev/mp4/idNNNNN/VIDEO/NNNNN.mp4 and test/mp4/; where the videos have no audio, also
       dev/aac/idNNNNN/VIDEO/NNNNN.m4a and test/aac/. --ids FILE takes a part, e.g. the English clips.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .spk, noise/, report.html, contact_sheet.png; the corpus has
       no transcripts.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
