"""`paddock run MODEL [PROMPT]`, and a link named `ollama`: what Ollama's users type.

Works on the command line before it is parsed, so it imports nothing slow.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from paddock.runner.display import console

from .pipeline_files import looks_like_a_model, named_file

if TYPE_CHECKING:
    from paddock.runner.settings import Settings

PROGRAM = "ollama"

# The options of `ollama run` that take a value, and those that take none (cmd/cmd.go there).
# Any other option before the first argument is one of ours: then a pipeline is meant.
_WITH_VALUE = frozenset({"--format", "--keepalive"})
_FLAGS = frozenset({"--verbose", "--insecure", "--nowordwrap", "--think", "--hidethinking"})
_OF_NO_USE = frozenset({"--nowordwrap"})


def is_ollama(program: str) -> bool:
    """Return whether the program was called by a link named `ollama`.

    >>> is_ollama("/usr/local/bin/ollama"), is_ollama("ollama.exe"), is_ollama("bin/paddock")
    (True, True, False)
    """
    return Path(program).stem.lower() == PROGRAM


def arguments(program: str, given: list[str]) -> list[str]:
    """Return the arguments with `run MODEL [PROMPT...]` as a chat; all others unchanged.

    A pipeline of that name in the current folder wins. `--pull` brings a model that is missing,
    as `ollama run` does; under our own name that takes `paddock pull`.
    """
    if given[:1] != ["run"] or not _names_a_model(given[1:]):
        return given
    pulls = "--pull" if is_ollama(program) else "--no-pull"
    return ["chat", pulls, *(word for word in given[1:] if word not in _OF_NO_USE)]


def tell_of_model(text: str, path: Path, settings: Settings) -> None:
    """Tell on stderr that a pipeline was taken where a model has the same name."""
    if not looks_like_a_model(text):
        return
    from paddock.engine.models import ModelFinder
    from paddock.engine.store.names import parse_name

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    if parse_name(text).key in {parse_name(name).key for name in finder.names()}:
        console.tell(
            f"'{text}' is a pipeline here ({path}) and also a model. The pipeline runs; "
            f"`paddock chat {text}` talks to the model."
        )


def _names_a_model(given: list[str]) -> bool:
    """Return whether the first argument is a model's name and not that of a pipeline."""
    words = iter(given)
    for word in words:
        name, equals, _ = word.partition("=")
        if not word.startswith("-"):
            return looks_like_a_model(word) and named_file(word) is None
        if name in _WITH_VALUE:
            if not equals:
                next(words, None)
        elif name not in _FLAGS:
            return False
    return False
