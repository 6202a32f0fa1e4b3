#compdef paddock
# Completion of paddock for zsh: eval "$(paddock completion zsh)" in ~/.zshrc, after compinit
_paddock() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX" item value
    local -a items
    for item in "${(@f)$({ask} ${~words[1]} 2>/dev/null)}"; do
        value=${item%%$'\t'*}
        [[ -z $value ]] && continue
        if [[ $item == *$'\t'* ]]; then
            items+=("${value//:/\\:}:${item#*$'\t'}")
        else
            items+=("${value//:/\\:}")
        fi
    done
    if (( $#items )); then _describe -V paddock items; else _files; fi
}
if [[ $funcstack[1] == _paddock ]]; then _paddock "$@"; else compdef _paddock paddock; fi
