# Functions of the run.sh scripts. They use $print, $updates, $plugin and the arrays hardware, length and overrides.

fail() {
    printf 'run.sh: %s\n' "$1" >&2
    exit 2
}

is_count() { [[ $1 =~ ^[0-9]+$ ]]; }

run() {
    printf '+' && printf ' %q' "$@" && printf '\n'
    [[ $print ]] || "$@"
}

# train SAVE NAME SETTINGS...: train a model with these settings, or continue. fairseq adds an update to a run that
# was finished, which would make another model of it: a file says that it is. Another file holds the settings, so that
# no model of other ones is taken for this one.
train() {
    local save=$1 name=$2 settings=("${@:3}") now
    now=$(printf '%q ' "${settings[@]}" "${overrides[@]}")
    if [[ -f $save/settings && $(<"$save/settings") != "$now" ]]; then
        fail "$save: was trained with other settings ($save/settings); choose another OUT, or delete it"
    fi
    if [[ -f $save/finished && $(<"$save/finished") == "${updates:-recipe}" ]]; then
        echo "$name is trained: $save"
        return
    fi
    [[ $print ]] || { mkdir -p "$save" && echo "$now" >"$save/settings"; }
    run fairseq-hydra-train "${settings[@]}" common.user_dir="$plugin" checkpoint.save_dir="$save" \
        hydra.run.dir="$save" "${hardware[@]}" "${length[@]}" "${overrides[@]}"
    [[ $print ]] || echo "${updates:-recipe}" >"$save/finished"
}
