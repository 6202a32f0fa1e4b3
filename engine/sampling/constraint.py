"""Hold an answer to a JSON Schema, a regular expression or a Lark grammar, by llguidance.

A new constraint is tried in a process of its own first (`trial`), then compiled in a thread beside
the one that reads requests; the owner thread gets a matcher that stands at the beginning. What
llguidance says about its inside never reaches a client. It is imported when needed: 50 ms.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint

from . import schema
from .masks import MaskMaker, Masks
from .spelling import END, N_NAMED, Spelling, byte_tokeniser, named, number_of
from .trial import Trials, name_of

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from paddock.engine.native.model import Model

OF_ANY_JSON = 64
"""Bytes: a token of 16 braces opens 16 objects, and the name of a property adds a value."""
MOST_PROBLEMS = 20
"""Of a schema that are told."""
MOST_GRAMMARS = 64
"""Compiled grammars that are kept: jobs ask with the same one again and again."""


class Vocabulary:
    """A model's tokens as llguidance reads them: 0.24 s for 49,152, once for each worker."""

    def __init__(self, model: Model) -> None:
        from llguidance import LLTokenizer

        from paddock.engine.native.vocabulary import raw_vocabulary

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
    """Compiles constraints for one model. Any thread may ask."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._trials = Trials()
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._compiled: OrderedDict[Constraint, Matcher | BadRequest] = OrderedDict()
        self._lock = threading.Lock()
        """Of what is compiled; never held while something is compiled."""

    def known(self, constraint: Constraint) -> Matcher | None:
        """Return a matcher at the beginning of a constraint that was compiled before.

        Raises:
            BadRequest: it was refused before.
        """
        with self._lock:
            known = self._compiled.get(constraint)
            if known is None:
                return None
            self._compiled.move_to_end(constraint)
            if isinstance(known, BadRequest):
                raise BadRequest(str(known))
            return known.copy()

    def matcher(self, constraint: Constraint, asked: Constraint | None = None) -> Matcher:
        """Return a matcher that stands at the beginning.

        Args:
            constraint: what the answer must match.
            asked: what a client asked for, where `constraint` is made of it.

        Raises:
            BadRequest: an answer cannot be held to this, or it costs too much to compile.
        """
        found = self.known(constraint)
        if found is not None:
            return found
        made: Matcher | BadRequest
        try:
            if asked is not None and asked != constraint:
                self._trials.check(asked)
            self._trials.check(constraint)
            made = self._compile(constraint)
        except BadRequest as error:
            made = error
        with self._lock:
            self._compiled[constraint] = made
            if len(self._compiled) > MOST_GRAMMARS:
                self._compiled.popitem(last=False)
        if isinstance(made, BadRequest):
            raise made
        with self._lock:
            return made.copy()

    def close(self) -> None:
        """End the process of trials."""
        self._trials.close()

    def _compile(self, constraint: Constraint) -> Matcher:
        """Compile what passed its trial."""
        from llguidance import LLMatcher

        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self._model)
        vocabulary = self._vocabulary
        inner = LLMatcher(vocabulary.tokeniser, _grammar(constraint), log_level=0)
        if inner.is_error():
            raise _refused(constraint, inner.get_error())
        numbers = _numbers(constraint)
        spelling = _spelling(_renumbered(constraint, numbers))
        matcher = Matcher(inner, spelling, vocabulary, _heft(constraint))
        matcher.named = {named(place): number for place, number in enumerate(numbers)}
        if constraint.kind == "lark":
            matcher.marks = (*matcher.named, *_spelled_out(constraint.source))
        return matcher


def refusal_of(constraint: Constraint) -> str:
    """Return why an answer cannot be held to a constraint; empty: it can, as far as bytes tell.

    Control tokens that a Lark grammar names are not among the bytes, so that its errors are left
    to the model's own vocabulary. Runs in the process of trials.
    """
    from llguidance import LLMatcher

    try:
        if constraint.kind == "json_schema":
            schema_of(constraint)
        renumbered = _renumbered(constraint, _numbers(constraint))
        inner = LLMatcher(byte_tokeniser(), _grammar(renumbered), log_level=0)
        if inner.is_error() and constraint.kind != "lark":
            raise _refused(constraint, inner.get_error())
        inner.compute_bitmask()
    except BadRequest as error:
        return str(error)
    return ""


def warm_up() -> None:
    """Load what each trial needs."""
    refusal_of(Constraint("json"))


def _refused(constraint: Constraint, why: str) -> BadRequest:
    return BadRequest(f"{name_of(constraint)} cannot be used: {schema.plain_words(why)}")


def _spelling(constraint: Constraint) -> Spelling:
    """Give a grammar over bytes.

    One that names control tokens by their texts has no such form. Then no end is known before the
    limit, which `Closing` finds out by trying: any text does for that.
    """
    from llguidance import LLMatcher

    inner = LLMatcher(byte_tokeniser(), _grammar(constraint), log_level=0)
    if inner.is_error():
        anything = LLMatcher.grammar_from_regex("(?s:.*)")
        inner = LLMatcher(byte_tokeniser(), anything, log_level=0)
    return Spelling(inner)


def _heft(constraint: Constraint) -> int | None:
    if constraint.kind == "json":
        return OF_ANY_JSON
    if constraint.kind == "json_schema":
        return OF_ANY_JSON + schema.heft(json.loads(constraint.source))
    return None


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


def _grammar(constraint: Constraint) -> str:
    """Write a constraint as llguidance takes it."""
    from llguidance import LLMatcher

    if constraint.kind in ("json", "json_schema"):
        return schema.compiled(parsed(constraint))
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    return LLMatcher.grammar_from_lark(constraint.source)


def parsed(constraint: Constraint) -> Any:
    """Return the JSON Schema of a `json` or `json_schema` constraint, unchecked.

    Raises:
        BadRequest: it is no JSON.
    """
    if constraint.kind == "json":
        return {"type": "object"}
    try:
        return json.loads(constraint.source)
    except json.JSONDecodeError as error:
        raise BadRequest(f"the JSON Schema is not JSON: {error}") from None
    except (ValueError, RecursionError):
        raise BadRequest("the JSON Schema is nested too deeply") from None


def schema_of(constraint: Constraint) -> Any:
    """Give the JSON Schema of a `json` or `json_schema` constraint.

    Raises:
        BadRequest: an answer cannot be held to it, with every place.
    """
    value = parsed(constraint)
    problems = schema.check(value)
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems[:MOST_PROBLEMS])
        raise BadRequest(f"an answer cannot be held to the JSON Schema:\n{told}")
    return value
