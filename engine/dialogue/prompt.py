"""From messages to counted token ids: what a worker does with a request before the scheduler.

Runs beside the owner thread, since tokenising needs only the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import PromptTooLong, TextTooLong
from paddock.engine.native.model import Model
from paddock.engine.request import ChatRequest, Constraint, Message, Sampling, reserved_tokens

from .chat import ChatTemplate
from .listener import Listener, PlainListener


@dataclass(frozen=True, slots=True)
class Prompted:
    """A conversation, ready to be answered."""

    tokens: Tokens
    listener: Listener
    shown: frozenset[int] = frozenset()
    """Control tokens that the listener wants to read as text."""
    constraint: Constraint | None = None
    """What the answer must match: the request's own wish, or what a forced tool call needs."""


class Prompter:
    """Renders and tokenises for one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._template = ChatTemplate(
            model.chat_template(),
            bos=model.special_text("bos"),
            eos=model.special_text("eos"),
            control_tokens=model.control_texts(),
        )

    def chat(self, request: ChatRequest, sampling: Sampling) -> Prompted:
        """Give a conversation's prompt, and who listens to its answer.

        Raises:
            BadRequest: the model's template refuses it.
        """
        tokens = self._rendered(request.messages)
        return Prompted(tokens, PlainListener(sampling.stop), constraint=request.constraint)

    def count_chat(self, messages: Items[Message]) -> int:
        """Count the tokens of a conversation's prompt."""
        return len(self._rendered(messages))

    def _rendered(self, messages: Items[Message]) -> Tokens:
        pieces = self._template.render(messages)
        bos = self._model.special_text("bos")
        # A template that writes BOS itself must not get a second one.
        wants_bos = self._model.adds_bos and not (bos and pieces and pieces[0].text.startswith(bos))
        parts = [
            self._model.tokenise(
                piece.text,
                with_special=wants_bos and number == 0,
                parse_special=not piece.is_literal,
            )
            for number, piece in enumerate(pieces)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def count(self, texts: Items[str]) -> list[int]:
        """Count each text's tokens, without what the model puts around a prompt."""
        return [len(self._plain(text)) for text in texts]

    def for_embedding(self, texts: Items[str], n_ctx_tokens: int) -> list[Tokens]:
        """Give each text's tokens with what the model puts around them.

        Raises:
            TextTooLong: one does not fit whole.
        """
        tokens = []
        for index, text in enumerate(texts):
            ids = self._model.tokenise(text, with_special=True, parse_special=False)
            if len(ids) > n_ctx_tokens:
                raise TextTooLong(index, len(ids), n_ctx_tokens)
            tokens.append(ids)
        return tokens

    def _plain(self, text: str) -> Tokens:
        return self._model.tokenise(text, with_special=False, parse_special=False)


def answer_budget(n_prompt_tokens: int, max_tokens: int | None, n_ctx_tokens: int) -> int:
    """Tell how long an answer may get.

    Raises:
        PromptTooLong: prompt and reserved answer together exceed the context.
    """
    n_reserved = reserved_tokens(max_tokens, n_ctx_tokens)
    if n_prompt_tokens + n_reserved > n_ctx_tokens or n_prompt_tokens == 0:
        raise PromptTooLong(n_prompt_tokens, n_reserved, n_ctx_tokens)
    return n_reserved
