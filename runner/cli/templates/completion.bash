# Completion of paddock for bash: eval "$(paddock completion bash)" in ~/.bashrc
_paddock() {
    local line=${COMP_LINE:0:COMP_POINT} item
    local word=${line##*[[:space:]]} before=""
    # Bash splits words at a colon.
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then before=${word%"${word##*:}"}; fi
    COMPREPLY=()
    while IFS= read -r item; do
        item=${item%%$'\t'*}
        if [[ -n $item ]]; then COMPREPLY+=("${item#"$before"}"); fi
    done < <({ask} "${1/#\~/$HOME}" 2>/dev/null)
}
complete -o bashdefault -o default -F _paddock paddock
