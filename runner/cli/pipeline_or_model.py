"""A name after `run`: a pipeline's file, or a model, to chat with as `ollama run` does.

This module is imported before the command is known, so it may import nothing slow at module level.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.text import shell_command
from paddock.runner.progress import printing

if TYPE_CHECKING:
    from paddock.runner.settings import Settings

OLLAMA_PROGRAM = "ollama"

# Options of `ollama run` with a value, and flags (its cmd/cmd.go). Any other option before the
# first argument is ours: then the argument is a pipeline.
_OLLAMA_OPTIONS_WITH_VALUE = frozenset({"--format", "--keepalive"})
_OLLAMA_FLAGS = frozenset({"--verbose", "--insecure", "--nowordwrap", "--think", "--hidethinking"})
_IGNORED_OLLAMA_FLAGS = frozenset({"--nowordwrap"})


def is_called_as_ollama(program: str) -> bool:
    """Return whether the program was started through a link named `ollama`.

    >>> is_called_as_ollama("/usr/local/bin/ollama"), is_called_as_ollama("bin/paddock")
    (True, False)
    """
    return Path(program).stem.lower() == OLLAMA_PROGRAM


def translate_ollama_run(program: str, given: list[str]) -> list[str]:
    """Return the arguments with `run MODEL [PROMPT...]` turned into a chat; all others unchanged.

    A pipeline of that name in the current folder wins. A missing model is pulled only if we are
    called as `ollama`.
    """
    if given[:1] != ["run"] or not _names_model(given[1:]):
        return given
    pulls = "--pull" if is_called_as_ollama(program) else "--no-pull"
    return ["chat", pulls, *(word for word in given[1:] if word not in _IGNORED_OLLAMA_FLAGS)]


def warn_of_model_with_same_name(text: str, path: Path, settings: Settings) -> None:
    from paddock.engine.models import model_finder, model_names

    finder = model_finder.ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    known = {model_names.parse_name(name).key for name in finder.names()}
    if model_names.parse_name(text).key in known:
        printing.print_err(
            f"'{text}' is a pipeline here ({path}) and also a model. The pipeline runs; "
            f"`{shell_command('paddock', 'chat', text)}` talks to the model."
        )


def _names_model(given: list[str]) -> bool:
    """Return whether the first argument is a model's name and no pipeline's."""
    words = iter(given)
    for word in words:
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            return looks_like_model(word) and named_file(word) is None
        if name in _OLLAMA_OPTIONS_WITH_VALUE:
            if not equals:
                next(words, None)
        elif name not in _OLLAMA_FLAGS:
            return False
    return False


def named_file(text: str) -> Path | None:
    path = Path(text)
    names = (path, path.with_name(f"{path.name}.yaml"), path.with_name(f"{path.name}.yml"))
    return next((name for name in names[: 3 if path.name else 1] if name.exists()), None)


def looks_like_model(text: str) -> bool:
    """Return whether this is `name:tag`, `owner/name` or a bare name, and not a file name."""
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)*(:[\w.-]+)?", text) is not None
    return is_name and not text.startswith((".", "-")) and (":" in text or not Path(text).suffix)
