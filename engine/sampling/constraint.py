"""Compile constraints (JSON Schema, regex, Lark grammar) by llguidance, and match answers.

A new constraint is first compiled on trial (`constraint_trials`). If it passes, the worker compiles
it for its model, in a thread of its own; the owner thread gets a new matcher.

Token masks are computed while the device computes: another thread asks llguidance for all masks of
a step at once, without the interpreter's lock. llguidance's internal messages never reach a client.
A worker imports this module when the first constraint is asked for: llguidance takes 50 ms.

`ByteMatcher` is the same grammar over a vocabulary of 256 bytes: the bytes that may follow are
known in 2 µs, where a mask over a model's vocabulary takes up to 400 µs.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper, regex_to_lark
from numpy.typing import NDArray

from paddock.engine.errors import BadRequest, ConstraintRefused
from paddock.engine.request import Constraint
from paddock.engine.system.records import replace
from paddock.engine.system.schema_patterns import END_SIGN, ByteVocabulary
from paddock.engine.system.text import shorten

from . import json_schema
from .constraint_trials import MARK_OF_GBNF, ConstraintTrials, constraint_name
from .gbnf import LARK_PART, lark_of_gbnf

if TYPE_CHECKING:
    from paddock.engine.llama.vocabulary import Vocabulary

MOST_MASK_THREADS = 8


class MaskComputer:
    """Compute masks, one bit for each token. Only the owner thread uses it."""

    def __init__(self, n_vocab: int, n_cpus: int) -> None:
        self._n_words = (n_vocab + 31) // 32
        # A mask takes 2 to 50 µs: more threads would only slow the decode down.
        self._executor = LLExecutor(max(1, min(MOST_MASK_THREADS, n_cpus // 4)))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def start(self, matchers: Sequence[LLMatcher]) -> Future[NDArray[np.int32]]:
        """Start the masks of matchers, a row for each; do not touch these before it is done."""
        return self._thread.submit(self._fill, matchers)

    def make(self, matcher: LLMatcher) -> NDArray[np.uint8]:
        words = np.empty(self._n_words, np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        return words.view(np.uint8)

    def _fill(self, matchers: Sequence[LLMatcher]) -> NDArray[np.int32]:
        words = np.empty((len(matchers), self._n_words), np.int32)
        rows = [(matcher, row) for row, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(
            rows, words.ctypes.data, 4 * self._n_words, len(matchers)
        )
        return words


N_NAMED_TOKENS = 64
"""Tokens that a grammar may name by number; no text can spell them."""
TOKEN_MARK = b"\xff"
"""Precedes the index of a named token in its stand-in: no UTF-8 text has this byte."""


def named_token_bytes(place: int) -> bytes:
    """Return the stand-in of a grammar's named token, by its index."""
    return TOKEN_MARK + bytes([place])


def named_token_id(place: int) -> int:
    return END_SIGN + 1 + place


def _encode_signs(text: bytes) -> list[int]:
    if TOKEN_MARK not in text:
        return list(text)
    first, *others = text.split(TOKEN_MARK)
    signs = list(first)
    for part in others:
        signs += [named_token_id(part[0]), *part[1:]]
    return signs


@cache
def byte_tokeniser() -> LLTokenizer:
    """Return llguidance's tokeniser over bytes."""
    return LLTokenizer(
        TokenizerWrapper(ByteVocabulary(N_NAMED_TOKENS)), n_vocab=END_SIGN + 1 + N_NAMED_TOKENS
    )


_END_SIGN_ALONE = frozenset((END_SIGN,))


class ByteMatcher:
    def __init__(self, inner: LLMatcher) -> None:
        self._inner = inner

    def copy(self) -> ByteMatcher:
        return ByteMatcher(self._inner.deep_copy())

    def take(self, text: bytes) -> bool:
        """Consume bytes; return False if one is not allowed: the matcher is then unusable."""
        return not text or self._inner.consume_tokens(_encode_signs(text))

    def allows(self, text: bytes) -> bool:
        """Return whether bytes may follow; a refused `take` costs 3 ms."""
        signs = _encode_signs(text)
        return self._inner.validate_tokens(signs) == len(signs)

    def ends_with(self, text: bytes) -> bool:
        signs = [*_encode_signs(text), END_SIGN]
        return self._inner.validate_tokens(signs) == len(signs)

    @property
    def may_end(self) -> bool:
        return self._inner.is_accepting()

    def forced(self) -> bytes:
        forced = self._inner.compute_ff_bytes()
        return b"" if TOKEN_MARK in forced else forced

    def spell(self, sign: int) -> bytes:
        return bytes([sign]) if sign < END_SIGN else named_token_bytes(sign - END_SIGN - 1)

    def kind(self) -> bytes:
        """Return the mask of what may follow; equal masks mark equivalent states."""
        return self._inner.compute_bitmask()

    def signs(self) -> frozenset[int]:
        bits = np.unpackbits(np.frombuffer(self.kind(), np.uint8), bitorder="little")
        return (
            frozenset(np.flatnonzero(bits[: END_SIGN + 1 + N_NAMED_TOKENS]).tolist())
            - _END_SIGN_ALONE
        )


MOST_USES = 64
"""Answers that a state machine of llguidance follows: each adds states to it, of at most 250,000.

With 20,000 labels and any answers, 4,000 of these took 17 MiB together.
"""
MOST_SPARES = 16
"""State machines that wait for an answer, of one grammar: those of as many requests at once."""
ANY_JSON_GROWTH_BYTES = 64
"""Bytes: a token of 16 braces opens 16 objects, and the name of a property adds a value."""
MOST_GRAMMARS = 64
"""Compiled grammars in the cache: jobs use the same one again and again."""


class GuidanceVocabulary:
    """A model's tokens for llguidance; takes 0.24 s for 49,152, once for each worker."""

    def __init__(self, model: Vocabulary) -> None:
        raw = model.raw_vocabulary()
        self.ends = model.ending_tokens
        # Not in llguidance's stub file; its own `llamacpp` module calls it.
        self.tokeniser: LLTokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]
            tokens=raw.tokens,
            vocab_ptr=raw.pointer,
            tokenize_fptr=raw.tokenise,
            eos_token=list(self.ends),
            slices=None,
        )
        self.masks = MaskComputer(model.n_vocab, os.cpu_count() or 1)

    def tokens_of(self, text: bytes) -> list[int]:
        try:
            return self.tokeniser.greedy_tokenize(text.decode())
        except UnicodeDecodeError:  # it begins or ends within a character
            return self.tokeniser.tokenize_bytes(text)

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        return self.tokeniser.decode_bytes(list(tokens))


class TokenMatcher:
    """One answer's state in its grammar.

    llguidance works out a grammar's states as answers reach them. So answers use one state machine
    after the other: with 10,000 labels a mask takes 10 µs on it and 35 µs on a new one.
    """

    def __init__(
        self,
        inner: LLMatcher,
        byte_matcher: ByteMatcher,
        vocabulary: GuidanceVocabulary,
        max_growth_bytes: int | None,
    ) -> None:
        self._inner = inner
        self._n_uses = 0
        self._spares: deque[tuple[LLMatcher, int]] = deque(maxlen=MOST_SPARES)
        """State machines of answers that have ended, with the number of these."""
        self.byte_matcher = byte_matcher
        self.vocabulary = vocabulary
        self.max_growth_bytes = max_growth_bytes
        """Of JSON: the most bytes that a token may add to the shortest ending."""
        self.marks: tuple[bytes, ...] = ()
        """Literal texts of a Lark grammar."""
        self.named: Mapping[bytes, int] = {}
        """Tokens that the grammar names by number, by their stand-in bytes."""
        self._under_way: tuple[Future[NDArray[np.int32]], int] | None = None
        self._mask: NDArray[np.uint8] | None = None
        self._forced: list[int] | None = None

    def new(self) -> TokenMatcher:
        """Return a matcher for another answer; this one must be in its initial state."""
        try:
            inner, n_uses = self._spares.pop()
        except IndexError:  # none is there, or another thread took the last one
            inner = self._inner.deep_copy()
            n_uses = 0
        new = TokenMatcher(inner, self.byte_matcher, self.vocabulary, self.max_growth_bytes)
        new._spares, new._n_uses = self._spares, n_uses + 1
        new.marks, new.named = self.marks, self.named
        return new

    def close(self) -> None:
        self._wait_for_mask()
        if self._n_uses < MOST_USES and not self._inner.is_error() and self._inner.reset():
            self._spares.append((self._inner, self._n_uses))
        del self._inner

    def piece(self, token: int) -> bytes:
        found = next((text for text, number in self.named.items() if number == token), None)
        return self.vocabulary.bytes_of([token]) if found is None else found

    def spell(self, text: bytes) -> list[int]:
        """Return few tokens that spell a text; stand-ins become their named tokens."""
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
        return self.max_growth_bytes is not None

    @property
    def may_end(self) -> bool:
        self._wait_for_mask()
        return self._inner.is_accepting()

    @property
    def must_end(self) -> bool:
        self._wait_for_mask()
        return self._inner.is_stopped()

    def take(self, tokens: Sequence[int]) -> bool:
        """Consume tokens; return False if one is not allowed: the matcher is then unusable."""
        self._wait_for_mask()
        self._mask = self._forced = None
        return self._inner.consume_tokens(list(tokens))

    def ends_with(self, tokens: Sequence[int]) -> bool:
        self._wait_for_mask()
        with_end = [*tokens, self.vocabulary.ends[0]]
        return self._inner.validate_tokens(with_end) == len(with_end)

    def forced_tokens(self) -> list[int]:
        if self._forced is None:
            self._wait_for_mask()
            self._forced = self._inner.compute_ff_tokens()
        return self._forced

    @property
    def has_mask(self) -> bool:
        return self._mask is not None or self._under_way is not None

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask for the next token, shape (n_vocab / 8 or a little more,)."""
        self._wait_for_mask()
        if self._mask is None:
            self._mask = self.vocabulary.masks.make(self._inner)
        return self._mask

    def allows(self, token: int) -> bool:
        self._wait_for_mask()
        return self._inner.validate_tokens([token]) == 1

    def _wait_for_mask(self) -> None:
        if self._under_way is not None:
            masks, row = self._under_way
            self._under_way = None
            self._mask = masks.result()[row].view(np.uint8)

    @staticmethod
    def begin_masks(matchers: Sequence[TokenMatcher]) -> None:
        masks = matchers[0].vocabulary.masks.start([matcher._inner for matcher in matchers])
        for row, matcher in enumerate(matchers):
            matcher._under_way = (masks, row)


class GrammarCompiler:
    def __init__(self, model: Vocabulary) -> None:
        self._model = model
        self._trials = ConstraintTrials()
        self._vocabulary: GuidanceVocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._compiled: OrderedDict[Constraint, TokenMatcher | ConstraintRefused] = OrderedDict()
        self._lock = threading.Lock()
        """Guards the cache; never held while something is compiled."""

    def known(self, constraint: Constraint) -> TokenMatcher | None:
        """Return a new matcher if the constraint is in the cache, else None.

        Raises:
            ConstraintRefused: it was refused before.
        """
        with self._lock:
            known = self._compiled.get(constraint)
            if known is None:
                return None
            self._compiled.move_to_end(constraint)
            if isinstance(known, ConstraintRefused):
                raise ConstraintRefused(str(known))
            return known.new()

    def matcher(
        self,
        constraint: Constraint,
        requested: Constraint | None = None,
        tools: Sequence[tuple[str, str]] = (),
    ) -> TokenMatcher:
        """Return a new matcher.

        `requested`: the client's own constraint, if `constraint` was derived from it. `tools`: the
        names and schemas of those of which one must be called.

        Raises:
            ConstraintRefused: it cannot be enforced, or costs too much to compile.
            TrialTimeout: that is not known.
        """
        found = self.known(constraint)
        if found is not None:
            return found
        made: TokenMatcher | ConstraintRefused
        try:
            if requested is not None and requested != constraint:
                self._trials.check(requested)
            made = self._compile(self._trials.check(constraint))
        except BadRequest as error:
            made = ConstraintRefused(self._tool_problem(tools) or str(error))
        with self._lock:
            self._compiled[constraint] = made
            if len(self._compiled) > MOST_GRAMMARS:
                self._compiled.popitem(last=False)
        if isinstance(made, ConstraintRefused):
            raise made
        with self._lock:
            return made.new()

    def close(self) -> None:
        self._trials.close()

    def _tool_problem(self, tools: Sequence[tuple[str, str]]) -> str:
        for name, schema in tools:
            for problem in self._trials.schema_problems(schema, compiles=False):
                return f"the tool '{name}' cannot be demanded: {problem}"
        return ""

    def _compile(self, constraint: Constraint) -> TokenMatcher:
        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = GuidanceVocabulary(self._model)
        vocabulary = self._vocabulary
        inner = LLMatcher(vocabulary.tokeniser, _grammar(constraint), log_level=0)
        if inner.is_error():
            raise _refusal(constraint, inner.get_error())
        numbers = _named_tokens(constraint)
        byte_matcher = _byte_matcher(_with_byte_ids(constraint, numbers))
        growth_bytes = ANY_JSON_GROWTH_BYTES if constraint.kind == "json" else None
        if constraint.kind == "json_schema":
            schema = json.loads(constraint.source)
            growth_bytes = ANY_JSON_GROWTH_BYTES + json_schema.max_growth_bytes(schema)
        matcher = TokenMatcher(inner, byte_matcher, vocabulary, growth_bytes)
        matcher.named = {named_token_bytes(place): number for place, number in enumerate(numbers)}
        if constraint.kind == "lark":
            matcher.marks = (*matcher.named, *_literals(constraint.source))
        return matcher


def compile_error(constraint: Constraint) -> str:
    """Return why a constraint cannot be enforced, or "". Runs in the trial subprocess.

    Control tokens that a Lark grammar names are not in the vocabulary of bytes, so the errors of
    such a grammar are found later, with the model's own vocabulary.
    """
    try:
        if constraint.kind == "json_schema":
            json_schema.checked_schema(constraint)
        renumbered = _with_byte_ids(constraint, _named_tokens(constraint))
        inner = LLMatcher(byte_tokeniser(), _grammar(renumbered), log_level=0)
        rules = LARK_PART.sub("", constraint.source) if constraint.kind == "lark" else ""
        if inner.is_error() and not re.search(r"<[^>\s]+>", rules):
            raise _refusal(constraint, inner.get_error())
        is_readable = not inner.is_error()
        inner.compute_bitmask()
        if is_readable and inner.is_stopped() and not inner.is_accepting():
            raise _refusal(constraint, "no answer matches it")
    except BadRequest as error:
        return str(error)
    return ""


def as_lark(constraint: Constraint) -> Constraint:
    """Return a constraint in which no GBNF is left. Runs in the trial subprocess.

    Raises:
        BadRequest: its GBNF cannot be read.
    """
    if constraint.kind == "gbnf":
        return Constraint("lark", lark_of_gbnf(constraint.source))
    if constraint.kind != "lark":
        return constraint
    source = _GBNF_RULE_BODY.sub(
        lambda found: f"%lark {{\n{lark_of_gbnf(json.loads(found[1]))}\n}}", constraint.source
    )
    source = _INLINED_RULE.sub("", source)
    return constraint if source == constraint.source else replace(constraint, source=source)


_GBNF_RULE_BODY = re.compile(r'(?m)(?<=: )%gbnf ("(?:[^"\\\n]|\\.)*")$')
"""GBNF within a grammar of ours, as `answer_format` writes it."""
_INLINED_RULE = re.compile(r"(?m)^\?(?=\w+\s*:)")
"""Of Lark: inlining is its own matter."""


def _refusal(constraint: Constraint, why: str) -> BadRequest:
    name, place, rest = constraint_name(constraint), "", why.lstrip()
    if found := _LARK_PLACE.match(rest):
        rest = rest[found.end() :]
    if "lookarounds not supported" in rest:
        rest = r"`\b` and `\B`, and `^` and `$` within a pattern, are not supported"
    if constraint.kind == "regex":
        if caret := _REGEX_FAULT.search(rest):  # within the pattern as it is compiled
            begin, n = len(caret[2]), len(caret[3])
            place = f"at '{shorten(caret[1][begin : begin + n], 20)}': "
    elif found and constraint.kind == "lark":
        line, column = int(found[1]), int(found[2])
        marks = MARK_OF_GBNF.findall("\n".join(constraint.source.split("\n")[:line]))
        place = (
            "line {}, rule '{}': ".format(*marks[-1])
            if marks
            else f"line {line}, column {column}: "
        )
    return BadRequest(f"{name} cannot be used: {place}{json_schema.plain_error(rest)}")


_LARK_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): ")
_REGEX_FAULT = re.compile(r"regex parse error:\n    (.*)\n    ( *)(\^+)")


def _byte_matcher(constraint: Constraint) -> ByteMatcher:
    """Return a matcher over bytes.

    A grammar that names control tokens by their texts has no such form: the matcher then allows
    any text, and `EndingGuard` finds no ending by it.
    """
    inner = LLMatcher(byte_tokeniser(), _grammar(constraint), log_level=0)
    if inner.is_error():
        anything = LLMatcher.grammar_from_regex("(?s:.*)")
        inner = LLMatcher(byte_tokeniser(), anything, log_level=0)
    return ByteMatcher(inner)


def _literals(source: str) -> Iterable[bytes]:
    """Yield the literal texts of a Lark grammar, without those of schemas in it."""
    rules = "\n".join(line for line in source.splitlines() if "%json" not in line)
    for literal in dict.fromkeys(_LITERAL.findall(rules)):
        try:
            text = str(json.loads(literal)).encode()
        except ValueError:
            continue
        if len(text) > 1:
            yield text


_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_TOKEN_BY_NUMBER = re.compile(r"<\[(\d+)\]>")


def _named_tokens(constraint: Constraint) -> list[int]:
    """Return the tokens that a Lark grammar names by number (`<[7]>`)."""
    if constraint.kind != "lark":
        return []
    return [int(n) for n in dict.fromkeys(_TOKEN_BY_NUMBER.findall(constraint.source))][
        :N_NAMED_TOKENS
    ]


def _with_byte_ids(constraint: Constraint, numbers: list[int]) -> Constraint:
    if not numbers:
        return constraint
    places = {number: named_token_id(place) for place, number in enumerate(numbers)}

    def renumbered(found: re.Match[str]) -> str:
        return f"<[{places.get(int(found[1]), END_SIGN)}]>"

    return replace(constraint, source=_TOKEN_BY_NUMBER.sub(renumbered, constraint.source))


def _grammar(constraint: Constraint) -> str:
    if constraint.kind in ("json", "json_schema"):
        return json_schema.schema_grammar(json_schema.parse_schema(constraint))
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(constraint.source, 'dw')}/")
    return LLMatcher.grammar_from_lark(LARK_PART.sub(_with_ascii_pattern, constraint.source))


def _with_ascii_pattern(found: re.Match[str]) -> str:
    pattern = found["pattern"]
    # "dw": in ASCII, as llguidance has it in patterns of JSON Schema
    return f"/{regex_to_lark(pattern, 'dw')}/" if pattern else found[0]
