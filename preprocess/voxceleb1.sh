#!/usr/bin/env bash
# From VoxCeleb1 (audio only) to lists of clips. Can be killed and started again.
set -euo pipefail
corpus=voxceleb1
audio_only=1

about() {
    cat <<'TEXT'
Usage: preprocess/voxceleb1.sh IN OUT [options]

  IN   folder with wav/idNNNNN/, perhaps in dev and test, or in vox1_dev_wav and vox1_test_wav.
  OUT  receives {train,valid,test}.tsv, .spk, classes.spk.txt, noise/. Nothing is cropped or copied, so options of
       cropping have no effect; the lists name the files in IN. The test list has the 40 speakers of the trial lists.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
