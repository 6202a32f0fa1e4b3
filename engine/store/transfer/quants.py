"""Read what the names of GGUF files say: quantisation, part of a split model, projector. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar

from paddock.engine.gguf import part_names

from .errors import Unusable

PREFERRED = "Q4_K_M"
"""What is taken where nobody says: nearly as good as the whole, at a quarter of the size."""

_LABEL = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[1-8](?:_[0-9A-Z]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32))"
    r"(?=$|[-._/])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
_SHOWN = 12  # of a repository's files, in an error


class Listed(Protocol):
    """A file of a list."""

    @property
    def name(self) -> str:
        """Its path in the repository."""


F = TypeVar("F", bound=Listed)


def label(name: str) -> str:
    """Give the quantisation that a file's name tells, in capitals; empty: it tells none.

    >>> label("Llama-3.2-1B-Instruct-Q4_K_M.gguf"), label("tiny.q8_0.gguf"), label("model.gguf")
    ('Q4_K_M', 'Q8_0', '')
    >>> label("Q6_K/model-Q6_K-00001-of-00002.gguf"), label("qwen-UD-IQ2_XXS.gguf")
    ('Q6_K', 'UD-IQ2_XXS')
    """
    found = _LABEL.findall(_stem(name))
    return str(found[-1]).upper() if found else ""


def is_projector(name: str) -> bool:
    """Tell whether a file is a vision projector, by the name that llama.cpp's tools give it."""
    return "mmproj" in name.rsplit("/", 1)[-1].lower()


def n_files(name: str) -> int:
    """Tell of how many files a model is a part; 1: it is whole.

    >>> n_files("big-00002-of-00005.gguf"), n_files("small.gguf")
    (5, 1)
    """
    split = _SPLIT.search(_stem(name))
    return int(split[2]) if split else 1


def choose(files: Sequence[F], wanted: str, where: str) -> list[F]:
    """Choose a model's file as Ollama does: the one that is asked for, Q4_K_M, or the first.

    Returns all its parts where it is split; a whole one comes before them.

    `wanted` is a quantisation or a file's name, in any case; empty: nobody asked.

    Raises:
        Unusable: there is none such, with those that there are; or a part of it is missing.
    """
    models = [
        file
        for file in files
        if file.name.lower().endswith(".gguf") and not is_projector(file.name)
        and "imatrix" not in file.name.lower()
    ]  # fmt: skip
    if not models:
        raise Unusable(where, "there is no GGUF file in it; look for a repository named …-GGUF")
    fitting = [file for file in models if not wanted or _fits(file.name, wanted)]
    if not fitting:
        raise Unusable(where, f"it has no {wanted}; it has {_shown(models)}")
    whole = [file for file in fitting if n_files(file.name) == 1]
    among = whole or fitting
    one = next((file for file in among if label(file.name) == PREFERRED), among[0])
    by_name = {file.name: file for file in models}
    folder, slash, base = one.name.rpartition("/")
    names = [f"{folder}{slash}{name}" for name in part_names(base)]
    missing = [name for name in names if name not in by_name]
    if missing:
        raise Unusable(f"{where}: {one.name}", f"'{missing[0]}', a part of it, is missing")
    return [by_name[name] for name in names]


def choose_projector(files: Sequence[F]) -> F | None:
    """Choose the projector that goes with a model: half precision, or else the first; or None."""
    found = [file for file in files if is_projector(file.name) and file.name.endswith(".gguf")]
    for kind in ("F16", "BF16", "Q8_0"):
        for file in found:
            if label(file.name) == kind:
                return file
    return found[0] if found else None


def _fits(name: str, wanted: str) -> bool:
    asked = wanted.lower()
    base = name.rsplit("/", 1)[-1].lower()
    return asked in (label(name).lower(), name.lower(), base, base.removesuffix(".gguf"))


def _shown(files: Sequence[F]) -> str:
    words = list(dict.fromkeys(label(file.name) or file.name for file in files))
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _stem(name: str) -> str:
    return name[:-5] if name.lower().endswith(".gguf") else name
