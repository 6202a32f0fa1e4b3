"""Parameters: the one list of their names, kinds and ranges, and how values are checked. Pure.

Ollama's options, OpenAI's and Anthropic's fields and Modelfiles take them from here. The ranges are
wider than those of the YAML language.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from .errors import BadRequest
from .system.records import Struct
from .system.text import shorten

ParameterKind = Literal["integer", "number", "boolean", "texts", "token ids", "bias"]
INT32 = 2**31 - 1
_MOST = sys.float_info.max
MOST_TEXTS = 256
"""Each is looked for at every token: 200,000 held the other answers of a model for 32 s."""
_WORDS: Mapping[ParameterKind, str] = {
    "boolean": "true or false",
    "texts": f"a text or a list of at most {MOST_TEXTS} texts",
    "token ids": "a list of token ids",
    "bias": "numbers from -100 to 100 by token ids",
}


class Parameter(Struct, frozen=True):
    kind: ParameterKind
    least: float = -_MOST
    most: float = _MOST

    def typed(self, value: Any) -> Any:
        """Return a value as the engine has it.

        Raises:
            ValueError: it is none of this kind: not `words`.
        """
        match self.kind, value:
            case "boolean", bool():
                return value
            case "texts", str() | list() | tuple():
                texts = (value,) if isinstance(value, str) else tuple(value)
                if len(texts) <= MOST_TEXTS and all(isinstance(text, str) for text in texts):
                    return tuple(filter(None, texts))
            case "token ids", list() | tuple():
                return tuple(map(_TOKEN_ID.typed, value))
            case "bias", Mapping():  # JSON has no integer keys
                return {
                    _TOKEN_ID.typed(int(token)): _BIAS.typed(bias) for token, bias in value.items()
                }
            case "integer" | "number", int() | float() if self.least <= value <= self.most:
                is_whole = value % 1 == 0
                if not isinstance(value, bool) and (is_whole or self.kind == "number"):
                    return float(value) if self.kind == "number" else int(value)
        raise ValueError(self.words)

    @property
    def words(self) -> str:
        if self.kind in _WORDS:
            return _WORDS[self.kind]
        noun = "a number" if self.kind == "number" else "a whole number"
        if self.least == -_MOST:
            return noun
        return f"{noun} from {self.least} " + (f"to {self.most}" if self.most < INT32 else "on")


_TOKEN_ID, _BIAS = Parameter("integer", 0, INT32), Parameter("number", -100, 100)
_SHARE = Parameter("number", 0, 1)
PARAMETERS: Mapping[str, Parameter] = {
    "temperature": Parameter("number", 0, 100),
    **dict.fromkeys(("top_p", "min_p", "typical_p"), _SHARE),
    "repeat_penalty": Parameter("number", 0.01, 100),  # logits are divided by it
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), Parameter("number", -100, 100)),
    # -1: all of them, or the whole context
    **dict.fromkeys(("top_k", "repeat_last_n"), Parameter("integer", -1, INT32)),
    "seed": Parameter("integer", -(2**63), 2**64 - 1),
    "max_tokens": Parameter("integer", -2, INT32),  # -1 and -2: up to the end of the context
    "min_tokens": _TOKEN_ID,
    **dict.fromkeys(("guards_repetition", "ignore_eos"), Parameter("boolean")),
    "stop": Parameter("texts"),
    "stop_token_ids": Parameter("token ids"),
    "logit_bias": Parameter("bias"),
}
OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), "max_tokens"),
    **dict.fromkeys(("n_predict", "num_predict"), "max_tokens"),
    "stop_sequences": "stop",
}
"""The parameters by the names that clients have for them."""


def checked_sampling(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling values as the engine wants them.

    Raises:
        BadRequest: a name that is not known, or a value that cannot be used.
    """
    return {name: checked_value(name, value) for name, value in params.items()}


def checked_value(name: str, value: Any) -> Any:
    if name not in PARAMETERS:
        near = get_close_matches(str(name), (*PARAMETERS, "num_predict"), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(PARAMETERS)}."
        raise BadRequest(f"there is no sampling value called '{name}'.{hint}")
    try:
        return PARAMETERS[name].typed(value)
    except ValueError:
        raise BadRequest(
            f"`{name}` must be {PARAMETERS[name].words}, not {shorten(repr(value), 100)}"
        ) from None
