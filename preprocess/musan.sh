#!/usr/bin/env bash
# From MUSAN to noise lists for a data folder: preprocess/musan.sh MUSAN DATA [options]; --help lists them.
set -euo pipefail
corpus=musan
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
find_command
"${av_ssl[@]}" data musan "$@"
