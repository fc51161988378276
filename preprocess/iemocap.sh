#!/usr/bin/env bash
# From IEMOCAP to everything that training needs. Can be killed and started again.
set -euo pipefail
corpus=iemocap

about() {
    cat <<'TEXT'
Usage: preprocess/iemocap.sh IN OUT [options]

  IN   folder with Session1/ to Session5/. Utterances of other emotions than anger, happiness (with excitement),
       neutrality and sadness are passed over.
  OUT  receives video/, audio/, {train,valid,test}.tsv, .wrd, .spk, .emo, classes.*.txt, spm.model, dict.wrd.txt, noise/,
       report.html, contact_sheet.png. No actor is in two splits; --fold session-1 to session-5 leave a session out.
TEXT
}

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
prepare "$@"
