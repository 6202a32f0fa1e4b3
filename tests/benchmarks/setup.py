"""What all contenders have in common: how they are set up, what they are asked and say."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.settings import PoolSettings
from tests.benchmarks import peers
from tests.benchmarks.loads import Ask

N_CTX_TOKENS = 4096

# Arg-max for everybody.
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}
OUR_GREEDY = {**GREEDY, "guards_repetition": False}


def greedy(ask: Ask) -> dict[str, Any]:
    """Return sampling values of a text as long as is asked for; a form ends where it is whole."""
    return {**GREEDY, "max_tokens": ask.n_tokens, "ignore_eos": not ask.schema}


WARM_UP = Ask("", "Say yes.", 4)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, and what the contender says that it cost."""

    text: str
    n_prompt_tokens: int
    n_answer_tokens: int
    is_shortened: bool = False


Heard = Callable[[], None]


class Running(Protocol):
    """A contender in its turn."""

    async def ask(self, ask: Ask, heard: Heard | None = None) -> Said:
        """Get one answer; with `heard`, as a stream that calls it for each piece of text."""
        ...

    def peak_bytes(self) -> int | None:
        """Return the most memory that it took; None where that is unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contenders have in common."""

    model: Path
    n_threads: int
    n_gpu_layers: int = 0
    n_ctx_tokens: int = N_CTX_TOKENS
    """What one request may fill."""
    n_cells: int | None = None
    """Of the whole cache; None: as many as each contender's sequences need."""
    n_parallel: int | None = None
    """Our sequences at once; None: as the pool decides."""
    server: Path | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of our pool, by `--set`."""

    def settings(self, **more: Any) -> PoolSettings:
        wanted: dict[str, Any] = {
            "n_threads": self.n_threads,
            "n_gpu_layers": self.n_gpu_layers,
            "num_parallel": self.n_parallel,
            # Not the user's own: there the model's name may stand for a tuned copy by now.
            "cache_dir": cache(),
            **({"n_cells": self.n_cells} if self.n_cells else {}),
            **more,
            **self.more,
        }
        return PoolSettings(**wanted)


Start = Callable[[Setup], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Contender:
    """Someone who can be started; `key` is what `--only` says, `name` what the table says."""

    key: str
    name: str
    start: Start
    needs_server: bool = False
    """llama-server has to be here."""


def cache() -> Path:
    """Return where the benchmarks keep what they need again: the tuned copy, profiles."""
    return peers.cache().parent.parent / "benchmarks"
