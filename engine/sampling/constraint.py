"""Hold an answer to a JSON Schema, a regular expression or a Lark grammar, by llguidance.

Grammars are compiled in the thread that reads requests; the owner thread gets a matcher that
stands at the beginning. llguidance is imported with the first constraint: it takes 50 ms.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.errors import BadRequest
from paddock.engine.native.model import Model
from paddock.engine.native.vocabulary import raw_vocabulary
from paddock.engine.request import Constraint

from . import schema
from .masks import MaskMaker, Masks
from .spelling import END, N_NAMED, Spelling, byte_tokeniser, named, number_of

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

OF_ANY_JSON = 64
"""Bytes: a token of 16 braces opens 16 objects, and the name of a property adds a value."""
MOST_GRAMMARS = 64
"""Compiled grammars that are kept: jobs ask with the same one again and again."""


class Vocabulary:
    """A model's tokens as llguidance reads them: 0.24 s for 49,152, once for each worker."""

    def __init__(self, model: Model) -> None:
        from llguidance import LLTokenizer

        raw = raw_vocabulary(model)
        self.ends = model.ending_tokens()
        """The tokens that end an answer."""
        # Not in llguidance's stub file, but what its own `llamacpp` module calls.
        self.tokeniser: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=raw.tokens,
            vocab_ptr=raw.pointer,
            tokenize_fptr=raw.tokenise,
            eos_token=list(self.ends),
            slices=None,
        )
        self.masks = MaskMaker(model.n_vocab, os.cpu_count() or 1)
        self.byte_tokens = {byte: token for byte, token in self._bytes_alone()}

    def _bytes_alone(self) -> Iterable[tuple[int, int]]:
        """Give the tokens that stand for a single byte."""
        for byte in range(256):
            tokens = self.tokens_of(bytes([byte]))
            if len(tokens) == 1:
                yield byte, tokens[0]

    def tokens_of(self, text: bytes) -> list[int]:
        """Spell bytes with few tokens, the longest first; no special ones."""
        try:
            return self.tokeniser.greedy_tokenize(text.decode())
        except UnicodeDecodeError:  # it begins or ends within a character
            return self.tokeniser.tokenize_bytes(text)

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        """Give the bytes that tokens stand for."""
        return self.tokeniser.decode_bytes(list(tokens))


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(
        self, inner: LLMatcher, spelling: Spelling, vocabulary: Vocabulary, heft: int | None
    ) -> None:
        self._inner = inner
        self.spelling = spelling
        """The same grammar byte by byte; it stays where the matcher began."""
        self.vocabulary = vocabulary
        self.heft = heft
        """Of JSON: how many bytes a token may add to the shortest end, at most."""
        self.marks: tuple[bytes, ...] = ()
        """Texts that a Lark grammar spells out."""
        self.named: Mapping[bytes, int] = {}
        """Tokens that the grammar names by number, by what stands for them in a text."""
        self._under_way: tuple[Masks, int] | None = None
        self._mask: NDArray[np.uint8] | None = None
        self._forced: list[int] | None = None

    def copy(self) -> Matcher:
        """Give another that stands at the same place (1 µs)."""
        self._settle()
        copy = Matcher(self._inner.deep_copy(), self.spelling, self.vocabulary, self.heft)
        copy.marks, copy.named = self.marks, self.named
        return copy

    def piece(self, token: int) -> bytes:
        """Give a token's bytes, or what stands for one that is named by number."""
        found = next((text for text, number in self.named.items() if number == token), None)
        return self.vocabulary.bytes_of([token]) if found is None else found

    def spell(self, text: bytes) -> list[int]:
        """Give few tokens that say a text here; those named by number as themselves."""
        if not self.named:
            return self.vocabulary.tokens_of(text)
        pattern = b"(" + b"|".join(map(re.escape, self.named)) + b")"
        tokens: list[int] = []
        for part in filter(None, re.split(pattern, text)):
            token = self.named.get(part)
            tokens += self.vocabulary.tokens_of(part) if token is None else [token]
        return tokens

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON as a whole."""
        return self.heft is not None

    @property
    def has_failed(self) -> bool:
        """Whether it met a limit of llguidance, and knows no further."""
        return self._inner.is_error()

    @property
    def may_end(self) -> bool:
        """Whether what was said so far is whole."""
        self._settle()
        return self._inner.is_accepting()

    @property
    def must_end(self) -> bool:
        """Whether nothing can follow."""
        self._settle()
        return self._inner.is_stopped()

    def take(self, tokens: Sequence[int]) -> bool:
        """Go on by tokens; False where one is not allowed, and all is lost."""
        self._settle()
        self._mask = self._forced = None
        return self._inner.consume_tokens(list(tokens))

    def ends_with(self, tokens: Sequence[int]) -> bool:
        """Tell whether these tokens make the answer whole."""
        self._settle()
        with_end = [*tokens, self.vocabulary.ends[0]]
        return self._inner.validate_tokens(with_end) == len(with_end)

    def forced_tokens(self) -> list[int]:
        """Give the tokens that must follow, none if there is a choice."""
        if self._forced is None:
            self._settle()
            self._forced = self._inner.compute_ff_tokens()
        return self._forced

    @property
    def has_mask(self) -> bool:
        """Whether the mask for the next token is made, or under way."""
        return self._mask is not None or self._under_way is not None

    def mask(self) -> NDArray[np.uint8]:
        """Give the mask for the next token, shape (n_vocab / 8 or a little more,)."""
        self._settle()
        if self._mask is None:
            self._mask = self.vocabulary.masks.make(self._inner)
        return self._mask

    def allows(self, token: int) -> bool:
        """Tell whether a token may follow: 0.5 µs, without a mask."""
        self._settle()
        return self._inner.validate_tokens([token]) == 1

    def _settle(self) -> None:
        """Wait for a mask that another thread is making."""
        if self._under_way is not None:
            masks, row = self._under_way
            self._under_way = None
            self._mask = masks.row(row)

    @staticmethod
    def begin_masks(matchers: Sequence[Matcher]) -> None:
        """Begin the masks of matchers of one model, in another thread."""
        masks = matchers[0].vocabulary.masks.start([one._inner for one in matchers])
        for row, matcher in enumerate(matchers):
            matcher._under_way = (masks, row)


class Grammars:
    """Compiles constraints for one model. Used by one thread alone, which reads the requests."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._vocabulary: Vocabulary | None = None
        self._compiled: OrderedDict[Constraint, Matcher] = OrderedDict()

    def matcher(self, constraint: Constraint) -> Matcher:
        """Give a matcher that stands at the beginning.

        Raises:
            BadRequest: an answer cannot be held to this.
        """
        known = self._compiled.get(constraint)
        if known is None:
            known = self._compile(constraint)
            self._compiled[constraint] = known
            if len(self._compiled) > MOST_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(constraint)
        return known.copy()

    def _compile(self, constraint: Constraint) -> Matcher:
        from llguidance import LLMatcher

        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self._model)
        grammar = _grammar(constraint, self._vocabulary.tokeniser)
        inner = LLMatcher(self._vocabulary.tokeniser, grammar, log_level=0)
        if inner.is_error():
            raise BadRequest(f"{_NAMES[constraint.kind]} cannot be used: {inner.get_error()}")
        numbers = _numbers(constraint)
        spelling = _spelling(_renumbered(constraint, numbers))
        matcher = Matcher(inner, spelling, self._vocabulary, _heft(constraint))
        matcher.named = {named(place): number for place, number in enumerate(numbers)}
        if constraint.kind == "lark":
            matcher.marks = (*matcher.named, *_spelled_out(constraint.source))
        return matcher


def _spelling(constraint: Constraint) -> Spelling:
    """Give a grammar over bytes.

    One that names control tokens by their texts has no such form. Then no end is known before the
    limit, which `Closing` finds out by trying: any text does for that.
    """
    from llguidance import LLMatcher

    try:
        grammar = _grammar(constraint, byte_tokeniser())
    except BadRequest:
        grammar = LLMatcher.grammar_from_regex("(?s:.*)")
    return Spelling(LLMatcher(byte_tokeniser(), grammar, log_level=0))


def _heft(constraint: Constraint) -> int | None:
    if constraint.kind == "json":
        return OF_ANY_JSON
    if constraint.kind == "json_schema":
        return OF_ANY_JSON + schema.heft(json.loads(constraint.source))
    return None


_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
}


def _spelled_out(source: str) -> Iterable[bytes]:
    """Give the literal texts of a Lark grammar, schemas within it left out."""
    rules = "\n".join(line for line in source.splitlines() if "%json" not in line)
    for literal in dict.fromkeys(_LITERAL.findall(rules)):
        try:
            text = str(json.loads(literal)).encode()
        except ValueError:
            continue
        if len(text) > 1:
            yield text


_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_BY_NUMBER = re.compile(r"<\[(\d+)\]>")


def _numbers(constraint: Constraint) -> list[int]:
    """Give the tokens that a Lark grammar names by number (`<[7]>`)."""
    if constraint.kind != "lark":
        return []
    return [int(n) for n in dict.fromkeys(_BY_NUMBER.findall(constraint.source))][:N_NAMED]


def _renumbered(constraint: Constraint, numbers: list[int]) -> Constraint:
    """Write them by their numbers in the vocabulary of bytes."""
    if not numbers:
        return constraint
    places = {number: number_of(place) for place, number in enumerate(numbers)}

    def renumbered(found: re.Match[str]) -> str:
        return f"<[{places.get(int(found[1]), END)}]>"

    return replace(constraint, source=_BY_NUMBER.sub(renumbered, constraint.source))


def _grammar(constraint: Constraint, tokeniser: LLTokenizer) -> str:
    """Write a constraint as llguidance takes it; tokens by number are those of a tokeniser.

    Raises:
        BadRequest: in plain words.
    """
    from llguidance import LLMatcher

    if constraint.kind in ("json", "json_schema"):
        return schema.compiled(schema_of(constraint))
    if constraint.kind == "regex":
        grammar = LLMatcher.grammar_from_regex(constraint.source)
    else:
        grammar = LLMatcher.grammar_from_lark(constraint.source)
    why = schema.refusal_of(grammar, tokeniser, minds_warnings=False)
    if why is not None:
        raise BadRequest(f"{_NAMES[constraint.kind]} cannot be used: {why.strip()}")
    return grammar


def schema_of(constraint: Constraint) -> Any:
    """Give the JSON Schema of a `json` or `json_schema` constraint.

    Raises:
        BadRequest: an answer cannot be held to it, with every place.
    """
    if constraint.kind == "json":
        return {"type": "object"}
    try:
        value = json.loads(constraint.source)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the JSON Schema is not JSON: {error}") from None
    problems = schema.check(value)
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems)
        raise BadRequest(f"an answer cannot be held to the JSON Schema:\n{told}")
    return value
