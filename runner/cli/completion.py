"""Completion of commands and values in a shell.

Typer computes the candidates; the scripts call it with environment variables and fall back to file
names. All of them use fish's format, a value and its help on each line: Typer's own scripts lose a
model's name at its colon (bash) and run the command twice (fish).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
import typer.main

from paddock.runner.progress import printing

from .exit_status import DONE

REQUEST_VARIABLE, LINE_VARIABLE = "_PADDOCK_COMPLETE", "_TYPER_COMPLETE_ARGS"

_ASK = (
    f"env {REQUEST_VARIABLE}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args "
    f'{LINE_VARIABLE}="$line"'
)

# Resolved, because an editable install is a tree of links that lacks the data files.
_TEMPLATES = Path(__file__).resolve().parent / "templates"


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
) -> int:
    """Print the script that completes commands, options and models in a shell.

    In ~/.bashrc: eval "$(paddock completion bash)". In ~/.zshrc, after compinit: eval "$(paddock
    completion zsh)". For fish, write it to ~/.config/fish/completions/paddock.fish once.
    """
    script = (_TEMPLATES / f"completion.{shell}").read_text("utf-8")
    printing.print_out(script.replace("{ask}", _ASK).rstrip("\n"))
    return DONE
