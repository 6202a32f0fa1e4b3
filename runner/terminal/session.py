"""One conversation: its model, its turns, and what the person has set. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Turn = dict[str, Any]
"""As `/api/chat` takes it: role, content, perhaps images."""


@dataclass(slots=True)
class Session:
    """What the next request is made of."""

    model: str
    abilities: frozenset[str] = frozenset()
    """Of completion, tools, insert, vision, embedding, thinking."""
    turns: list[Turn] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    format: str | Mapping[str, Any] | None = None
    think: bool | str | None = None
    """None: as the model has it."""
    keep_alive_s: float | None = None
    is_verbose: bool = False
    shows_thinking: bool = True
    draws_markdown: bool = True

    @property
    def sees(self) -> bool:
        """Whether its model takes images."""
        return "vision" in self.abilities

    def asked(self, text: str, images: Sequence[str] = ()) -> None:
        """Add what the person says; images are base64."""
        self.turns.append({"role": "user", "content": text, **_some(images=list(images))})

    def answered(self, text: str, thinking: str = "") -> None:
        """Add what the model said, whole or as far as it came."""
        self.turns.append({"role": "assistant", "content": text, **_some(thinking=thinking)})

    def take_back(self) -> None:
        """Forget the last question, which got no answer."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()

    def change_model(self, model: str, abilities: frozenset[str]) -> None:
        """Go on with another model, from the beginning."""
        self.model, self.abilities = model, abilities
        self.turns.clear()
        self.think = None

    def body(self) -> dict[str, Any]:
        """Give the request of the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*system, *self.turns],
            **_some(options=dict(self.options), format=self.format),
            **({} if self.think is None else {"think": self.think}),
            **({} if self.keep_alive_s is None else {"keep_alive": self.keep_alive_s}),
        }

    def recipe(self, name: str) -> dict[str, Any]:
        """Give the request that makes a model of this conversation."""
        return {
            "model": name,
            "from": self.model,
            **_some(system=self.system, parameters=dict(self.options), messages=self._plain()),
        }

    def _plain(self) -> list[Turn]:
        return [{"role": turn["role"], "content": turn["content"]} for turn in self.turns]


def _some(**fields: Any) -> dict[str, Any]:
    """Leave out what is empty."""
    return {name: value for name, value in fields.items() if value}
