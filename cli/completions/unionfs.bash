# bash completion for unionfs. `unionfs __complete` finds and quotes the candidates: cli/complete.py.

_unionfs() {
    local program=${COMP_WORDS[0]} answer=()
    [[ $program == \~/* ]] && program=$HOME/${program#\~/}
    mapfile -t answer < <("$program" __complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    COMPREPLY=("${answer[@]:1}")
    # A directory, `oci:`, `upperdir=`: there is more to come.
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[/:=] ]]; then compopt -o nospace; fi
}

complete -F _unionfs unionfs
