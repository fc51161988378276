#!/usr/bin/env bash
# Run one step of an experiment. The Makefile that run.py writes calls it, in the output folder:
#
#   step.sh UPDATES RESULT done/NAME commands/NAME.sh done/EARLIER...
#
# Runs commands/NAME.sh, logs into logs/NAME.log, reports progress, and notes in done/NAME how many seconds it took, by the clock
# and of processors: the latter depend less on what else the machine does. A step that was killed resumes from RESULT, what it
# has made so far. If its command or an earlier step has changed since, RESULT is deleted first: fairseq would resume from a
# checkpoint of other settings. UPDATES are those of a training, else 0; RESULT may be empty.
set -euo pipefail

updates=$1 result=$2 note=$3 script=$4
name=$(basename "$note") log=logs/$(basename "$note").log started=started/$(basename "$note")
mkdir -p done logs started

digest() { cat "$@" | python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }
say() { printf '%s  %s: %s\n' "$(date +%T)" "$name" "$1"; }

inputs=$(digest "${@:4}")
if grep -qs "\"inputs\": \"$inputs\"" "$note"; then # newer files with the content of before
    touch "$note"
    exit
fi
if [[ $(head -n 1 "$started" 2>/dev/null) != "$inputs" ]]; then
    rm -rf -- ${result:+"$result"}
    echo "$inputs" >"$started" # below it: what account() writes
fi
rm -f "$note"

# Updates done and the time left; of other commands the last line of the log.
progress() {
    if ((updates)); then
        grep -o '"num_updates": "[0-9]*"' "$log" | grep -o '[0-9]*' | awk -v all="$updates" -v seconds=$SECONDS '
            NR == 1 { first = $1 } # a resumed training did its first updates in another run
            { last = $1 }
            END {
                if (!NR) { print "starting"; exit }
                left = last > first ? sprintf(", about %.0f min left", seconds * (all - last) / (last - first) / 60) : ""
                print last " of " all " updates" left
            }' || true
    else
        tail -c 300 "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c 1-80 || echo running
    fi
}

say started
SECONDS=0
set -m # the command and all that it starts can be ended together
bash -e "$script" >"$log" 2>&1 </dev/null &
command=$!
(while sleep "${REPORT_EVERY:-30}"; do say "$(progress)"; done) &
reporter=$!
set +m
trap 'kill -- -$reporter 2>/dev/null || true' EXIT
# Add the seconds of this run, by the clock and of processors, to those of runs before it that were stopped.
account() {
    times >"$started.times" # in a subshell they would be 0
    { tail -n +2 "$started"; awk -F '[ms ]+' -v clock=$SECONDS 'NR == 2 { print clock, 60 * ($1 + $3) + $2 + $4 }' "$started.times"; } |
        awk '{ clock += $1; processor += $2 } END { print clock, processor }' >"$started.sum"
    { echo "$inputs"; cat "$started.sum"; } >"$started"
    rm "$started.times" "$started.sum"
}
stop() {
    kill -- -$command 2>/dev/null || true
    wait $command 2>/dev/null || true
    account
    say "stopped; run it again to resume"
    exit 143
}
trap stop INT TERM HUP
if ! wait "$command"; then
    account
    tail -n 25 "$log" >&2
    echo "$name failed; the whole log: $PWD/$log" >&2
    exit 1
fi
account
read -r seconds processor < <(tail -n 1 "$started")
version=$(git -C "$(dirname "$0")" describe --always --dirty 2>/dev/null) || version=none
printf '{"inputs": "%s", "script": "%s", "seconds": %d, "cpu": %.0f, "ended": "%s", "version": "commit %s"}\n' \
    "$inputs" "$(digest "$script")" "$seconds" "$processor" "$(date +%s) $$" "$version" >"$note"
rm "$started"
say "done in $SECONDS s"
