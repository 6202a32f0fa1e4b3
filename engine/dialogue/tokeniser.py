"""From the pieces of a rendered prompt to token ids, and back to text. One model's vocabulary.

What stands before a prompt (BOS) is put there once, whoever else writes it too.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace
from functools import cached_property

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.native.model import Model

from .chat import TextPiece


class Tokeniser:
    """Reads and writes token ids; safe from any thread."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def specials(self) -> dict[str, int]:
        """The ids of control tokens and tags, by their texts."""
        return self._model.special_tokens()

    @cached_property
    def bos(self) -> Tokens:
        """What the model wants before every prompt, if it wants anything."""
        if not self._model.adds_bos:
            return np.empty(0, np.int32)
        return self._model.tokenise("", with_special=True, parse_special=False)[:1]

    def n_bos(self, tokens: Tokens) -> int:
        """Count the tokens at the beginning that are the model's own."""
        has_bos = len(self.bos) and len(tokens) and tokens[0] == self.bos[0]
        return 1 if has_bos else 0

    def read(
        self, pieces: Items[TextPiece], *, begins: bool = True, is_first: bool = True
    ) -> Tokens:
        """Give the tokens of a rendered prompt.

        Args:
            pieces: its parts.
            begins: whether the model's BOS token belongs before it.
            is_first: whether it is the rendered text's own beginning, not what follows an image.
        """
        adds_bos = self._model.adds_bos
        bos = self._model.special_text("bos")
        # A template that writes BOS itself must not get a second one.
        has_bos = bool(bos and pieces and pieces[0].text.startswith(bos))
        if adds_bos and has_bos and is_first and not begins:
            first = replace(pieces[0], text=pieces[0].text.removeprefix(bos))
            pieces = [first, *pieces[1:]]
        wants_bos = begins and adds_bos and not has_bos
        parts = [
            self._model.tokenise(piece.text, with_special=wants_bos and number == 0,
                                 parse_special=True)
            if not piece.is_literal
            else self._spelled(piece.text)
            for number, piece in enumerate(pieces)
        ]  # fmt: skip
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _spelled(self, text: str) -> Tokens:
        """Tokenise what must stay mere text, though it spells a token of its own.

        Tags that a model's makers added are read as such even where control tokens are not, so
        the first character goes alone.
        """
        return np.concatenate([self.plain(text[:1]), self.plain(text[1:])])

    def plain(self, text: str) -> Tokens:
        """Give the tokens of mere text, without what the model puts around a prompt."""
        return self._model.tokenise(text, with_special=False, parse_special=False)

    def marked(self, text: str) -> Tokens:
        """Give the tokens of a text; control tokens are read as such, and none is added."""
        return self._model.tokenise(text, with_special=False, parse_special=True)

    def text(self, tokens: Tokens) -> str:
        """Give the text of tokens, control tokens as they are spelled."""
        return self._model.text(tokens.tolist())

    def known(self, ids: Items[int]) -> Tokens:
        """Take token ids from a request.

        Raises:
            BadRequest: the model has no such token.
        """
        for one in ids:
            if not 0 <= one < self._model.n_vocab:
                raise BadRequest(
                    f"there is no token {one}: the model's are 0 to {self._model.n_vocab - 1}"
                )
        return np.array(ids, np.int32)

    def earlier(self, ids: Items[int]) -> Tokens:
        """Take the tokens that stand before a prompt, with the model's own beginning.

        Raises:
            BadRequest: the model has no such token.
        """
        tokens = self.known(ids)
        if not len(tokens) or self.n_bos(tokens):
            return tokens
        return np.concatenate([self.bos, tokens])
