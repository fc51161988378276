#!/usr/bin/env bash
# From a folder of talking-face videos to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=folder

about() {
    cat <<'TEXT'
Usage: preprocess/folder.sh IN OUT [options]

  IN   folder of videos with audio (mp4, mpg, avi, mkv, mov, webm, ...), searched with its subfolders.
       A text file with the same name is its transcript, e.g. talk/001.mp4 and talk/001.txt.
       Folders named train (pretrain, trainval), valid or test decide the split.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, spm.model, dict.wrd.txt, noise/, report.html,
       contact_sheet.png.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
