"""Shell completion: the script of each shell, and what a shell asks for.

Typer computes the candidates; the scripts call it with environment variables and fall back to file
names. All of them use fish's format, a value and its help on each line: Typer's own scripts lose a
model's name at its colon (bash) and run the command twice (fish).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from paddock.runner.progress import console

from .exit_status import DONE, with_exit_status

REQUEST_VARIABLE, _LINE = "_PADDOCK_COMPLETE", "_TYPER_COMPLETE_ARGS"

_ASK = f'env {REQUEST_VARIABLE}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args {_LINE}="$line"'

_BASH = (
    """\
# Completion of paddock for bash: eval "$(paddock completion bash)" in ~/.bashrc
_paddock() {
    local line=${COMP_LINE:0:COMP_POINT} item
    local word=${line##*[[:space:]]} before=""
    # Bash splits words at a colon.
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then before=${word%"${word##*:}"}; fi
    COMPREPLY=()
    while IFS= read -r item; do
        item=${item%%$'\\t'*}
        if [[ -n $item ]]; then COMPREPLY+=("${item#"$before"}"); fi
    done < <("""
    + _ASK
    + """ "${1/#\\~/$HOME}" 2>/dev/null)
}
complete -o bashdefault -o default -F _paddock paddock
"""
)

_ZSH = (
    """\
#compdef paddock
# Completion of paddock for zsh: eval "$(paddock completion zsh)" in ~/.zshrc, after compinit
_paddock() {
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX" item value
    local -a items
    for item in "${(@f)$("""
    + _ASK
    + """ ${~words[1]} 2>/dev/null)}"; do
        value=${item%%$'\\t'*}
        [[ -z $value ]] && continue
        if [[ $item == *$'\\t'* ]]; then
            items+=("${value//:/\\\\:}:${item#*$'\\t'}")
        else
            items+=("${value//:/\\\\:}")
        fi
    done
    if (( $#items )); then _describe -V paddock items; else _files; fi
}
if [[ $funcstack[1] == _paddock ]]; then _paddock "$@"; else compdef _paddock paddock; fi
"""
)

_FISH = (
    """\
# Completion of paddock for fish: paddock completion fish > ~/.config/fish/completions/paddock.fish
function __paddock_complete
    set -l line (commandline -cp)
    set -l program (string replace -r '^~' $HOME -- (commandline -opc)[1])
    set -l items ("""
    + _ASK
    + """ $program 2>/dev/null | string match -r '.+')
    if test (count $items) -gt 0
        printf '%s\\n' $items
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command paddock --no-files --arguments '(__paddock_complete)'
"""
)

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def register(app: typer.Typer) -> None:
    app.command("completion")(with_exit_status(completion))


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
) -> int:
    """Print the script that completes commands, options and models in a shell.

    In ~/.bashrc: eval "$(paddock completion bash)". In ~/.zshrc, after compinit: eval "$(paddock
    completion zsh)". For fish, write it to ~/.config/fish/completions/paddock.fish once.
    """
    console.print_out(_SCRIPTS[shell].rstrip("\n"))
    return DONE


def is_completion_request(environ: Mapping[str, str]) -> bool:
    """Return whether a shell runs us for its completion."""
    return bool(environ.get(REQUEST_VARIABLE))


def completed_command(environ: Mapping[str, str]) -> str | None:
    """Return the command whose arguments are completed; None while its own name is typed."""
    words = environ.get(_LINE, "").lstrip().split(" ")
    return words[1] if len(words) > 2 else None


def disable_rich_markup() -> None:
    """Keep Typer from importing Rich for help texts, which takes 0.15 s."""
    sys.modules["rich"] = None  # type: ignore[assignment]
