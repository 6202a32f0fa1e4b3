"""Compile constraints (JSON Schema, regex, Lark grammar) by llguidance, and match answers.

A new constraint is compiled in a subprocess with limits first (`ConstraintTrials`), over the
vocabulary of bytes: llguidance expands some small schemas without end, and ends its process on
others (a stack overflow in Rust), and a client may send any. A process that exceeds its limits on
size, processor time or memory is killed, and the next constraint gets a new one. What passed is
compiled in the worker, in a thread beside the one that reads requests, and costs about as much
again; the owner thread gets a matcher at the beginning.

Token masks are computed while the device computes: one thread beside the owner's asks llguidance
for all masks of a step at once, which releases the interpreter's lock, as the owner's decode does.
llguidance's internal messages never reach a client. It is imported when needed: 50 ms.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint

from . import schema
from .byte_grammar import (
    END_SIGN,
    N_NAMED_TOKENS,
    ByteMatcher,
    byte_tokeniser,
    named_token_bytes,
    named_token_id,
)

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from paddock.engine.llama.llama_model import Model

MOST_MASK_THREADS = 8


class MaskComputer:
    """Makes masks, one bit for each token of the vocabulary. Used by the owner thread alone."""

    def __init__(self, n_vocab: int, n_cpus: int) -> None:
        from llguidance import LLExecutor

        self._n_words = (n_vocab + 31) // 32
        # A mask takes 2 to 50 µs: more threads than this only get into the decode's way.
        self._executor = LLExecutor(max(1, min(MOST_MASK_THREADS, n_cpus // 4)))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")

    def start(self, matchers: Sequence[LLMatcher]) -> TokenMasks:
        """Begin the masks of matchers that nobody touches until `TokenMasks.row` was asked."""
        words = np.empty((len(matchers), self._n_words), np.int32)
        return TokenMasks(words, self._thread.submit(self._fill, list(matchers), words))

    def make(self, matcher: LLMatcher) -> NDArray[np.uint8]:
        """Make one mask now."""
        words = np.empty(self._n_words, np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        return words.view(np.uint8)

    def _fill(self, matchers: list[LLMatcher], words: NDArray[np.int32]) -> None:
        rows = [(matcher, row) for row, matcher in enumerate(matchers)]
        self._executor.unsafe_compute_mask_ptr(
            rows, words.ctypes.data, 4 * self._n_words, len(matchers)
        )


class TokenMasks:
    """The masks of one turn, ready or on their way."""

    def __init__(self, words: NDArray[np.int32], made: Future[None]) -> None:
        self._words = words
        self._made = made

    def wait(self) -> None:
        """Wait until all are made."""
        self._made.result()

    def row(self, number: int) -> NDArray[np.uint8]:
        """Return a mask's bytes, the lowest bit first; waits until it is made."""
        self.wait()
        row: NDArray[np.uint8] = self._words[number].view(np.uint8)
        return row


MOST_GRAMMAR_CHARACTERS = 512 * 1024
"""Of a schema or grammar; the largest of real ones have some 50,000."""
MOST_PATTERN_CHARACTERS = 32 * 1024
TRIAL_CPU_S = 3
"""Of one trial: 5,000 optional properties take 2.1 s, a schema of a job 1 ms."""
TRIAL_WALL_S = 60.0
"""The same on a machine that has no processor free."""
TRIAL_MEMORY_BYTES = 512 * 1024 * 1024
"""More than what the process has at its start."""
TRIAL_COMMAND = (sys.executable, "-m", "paddock.engine.sampling.constraint_trial")

_CONSTRAINT_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
}


def constraint_name(constraint: Constraint) -> str:
    """Return what a message calls a constraint."""
    return _CONSTRAINT_NAMES[constraint.kind]


class ConstraintTrials:
    """Tries constraints, one after the other. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, constraint: Constraint) -> None:
        """Refuse what an answer cannot be held to, or what costs too much to compile.

        Raises:
            BadRequest: in plain words.
        """
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_GRAMMAR_CHARACTERS
        n_characters = len(constraint.source)
        if n_characters > most:
            raise BadRequest(
                f"{constraint_name(constraint)} has {n_characters:,} characters, and {most:,} are the most"
            )
        with self._lock:
            why = self._answer({"kind": constraint.kind, "source": constraint.source})
        if why is None:
            raise BadRequest(
                f"{constraint_name(constraint)} is too complex: it cannot be compiled within {TRIAL_CPU_S} s and "
                f"{TRIAL_MEMORY_BYTES // 2**20} MiB. Use fewer options, `$ref`s or repetitions"
            )
        if why:
            raise BadRequest(why)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _answer(self, asked: dict[str, Any]) -> str | None:
        """Return why a constraint is refused, empty where it is not; None: the process ended."""
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it was killed between two trials
        if self._process is None:
            self._process = subprocess.Popen(
                TRIAL_COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            is_there, _, _ = select.select([process.stdout], [], [], TRIAL_WALL_S)
            line = process.stdout.readline() if is_there else b""
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._end()
            return None
        return str(json.loads(line)["why"])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


ANY_JSON_GROWTH_BYTES = 64
"""Bytes: a token of 16 braces opens 16 objects, and the name of a property adds a value."""
MOST_SHOWN_PROBLEMS = 20
"""Of a schema that are told."""
MOST_GRAMMARS = 64
"""Compiled grammars that are kept: jobs ask with the same one again and again."""


class GuidanceVocabulary:
    """A model's tokens as llguidance reads them: 0.24 s for 49,152, once for each worker."""

    def __init__(self, model: Model) -> None:
        from llguidance import LLTokenizer

        from paddock.engine.llama.llama_model import raw_vocabulary

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
        self.masks = MaskComputer(model.n_vocab, os.cpu_count() or 1)
        self.byte_tokens = {byte: token for byte, token in self._bytes_alone()}

    def _bytes_alone(self) -> Iterable[tuple[int, int]]:
        """Yield the tokens that stand for a single byte."""
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
        """Return the bytes that tokens stand for."""
        return self.tokeniser.decode_bytes(list(tokens))


class TokenMatcher:
    """Where one answer stands in its grammar."""

    def __init__(
        self,
        inner: LLMatcher,
        spelling: ByteMatcher,
        vocabulary: GuidanceVocabulary,
        max_growth_bytes: int | None,
    ) -> None:
        self._inner = inner
        self.spelling = spelling
        """The same grammar byte by byte; it stays where the matcher began."""
        self.vocabulary = vocabulary
        self.max_growth_bytes = max_growth_bytes
        """Of JSON: how many bytes a token may add to the shortest end, at most."""
        self.marks: tuple[bytes, ...] = ()
        """Texts that a Lark grammar spells out."""
        self.named: Mapping[bytes, int] = {}
        """Tokens that the grammar names by number, by what stands for them in a text."""
        self._under_way: tuple[TokenMasks, int] | None = None
        self._mask: NDArray[np.uint8] | None = None
        self._forced: list[int] | None = None

    def copy(self) -> TokenMatcher:
        """Return another that stands at the same place (1 µs)."""
        self._settle()
        copy = TokenMatcher(
            self._inner.deep_copy(), self.spelling, self.vocabulary, self.max_growth_bytes
        )
        copy.marks, copy.named = self.marks, self.named
        return copy

    def piece(self, token: int) -> bytes:
        """Return a token's bytes, or what stands for one that is named by number."""
        found = next((text for text, number in self.named.items() if number == token), None)
        return self.vocabulary.bytes_of([token]) if found is None else found

    def spell(self, text: bytes) -> list[int]:
        """Return few tokens that say a text here; those named by number as themselves."""
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
        return self.max_growth_bytes is not None

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
        """Return whether these tokens make the answer whole."""
        self._settle()
        with_end = [*tokens, self.vocabulary.ends[0]]
        return self._inner.validate_tokens(with_end) == len(with_end)

    def forced_tokens(self) -> list[int]:
        """Return the tokens that must follow, none if there is a choice."""
        if self._forced is None:
            self._settle()
            self._forced = self._inner.compute_ff_tokens()
        return self._forced

    @property
    def has_mask(self) -> bool:
        """Whether the mask for the next token is made, or under way."""
        return self._mask is not None or self._under_way is not None

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask for the next token, shape (n_vocab / 8 or a little more,)."""
        self._settle()
        if self._mask is None:
            self._mask = self.vocabulary.masks.make(self._inner)
        return self._mask

    def allows(self, token: int) -> bool:
        """Return whether a token may follow: 0.5 µs, without a mask."""
        self._settle()
        return self._inner.validate_tokens([token]) == 1

    def _settle(self) -> None:
        """Wait for a mask that another thread is making."""
        if self._under_way is not None:
            masks, row = self._under_way
            self._under_way = None
            self._mask = masks.row(row)

    @staticmethod
    def begin_masks(matchers: Sequence[TokenMatcher]) -> None:
        """Begin the masks of matchers of one model, in another thread."""
        masks = matchers[0].vocabulary.masks.start([one._inner for one in matchers])
        for row, matcher in enumerate(matchers):
            matcher._under_way = (masks, row)


class GrammarCompiler:
    """Compiles constraints for one model. Any thread may ask."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._trials = ConstraintTrials()
        self._vocabulary: GuidanceVocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._compiled: OrderedDict[Constraint, TokenMatcher | BadRequest] = OrderedDict()
        self._lock = threading.Lock()
        """Of what is compiled; never held while something is compiled."""

    def known(self, constraint: Constraint) -> TokenMatcher | None:
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

    def matcher(self, constraint: Constraint, asked: Constraint | None = None) -> TokenMatcher:
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
        made: TokenMatcher | BadRequest
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

    def _compile(self, constraint: Constraint) -> TokenMatcher:
        """Compile what passed its trial."""
        from llguidance import LLMatcher

        with self._vocabulary_lock:
            if self._vocabulary is None:
                self._vocabulary = GuidanceVocabulary(self._model)
        vocabulary = self._vocabulary
        inner = LLMatcher(vocabulary.tokeniser, _grammar(constraint), log_level=0)
        if inner.is_error():
            raise _refusal(constraint, inner.get_error())
        numbers = _named_tokens(constraint)
        spelling = _byte_matcher(_with_byte_ids(constraint, numbers))
        matcher = TokenMatcher(inner, spelling, vocabulary, _growth_bytes(constraint))
        matcher.named = {named_token_bytes(place): number for place, number in enumerate(numbers)}
        if constraint.kind == "lark":
            matcher.marks = (*matcher.named, *_literals(constraint.source))
        return matcher


def compile_error(constraint: Constraint) -> str:
    """Return why an answer cannot be held to a constraint; empty: it can, as far as bytes tell.

    Control tokens that a Lark grammar names are not among the bytes, so that its errors are left
    to the model's own vocabulary. Runs in the process of trials.
    """
    from llguidance import LLMatcher

    try:
        if constraint.kind == "json_schema":
            checked_schema(constraint)
        renumbered = _with_byte_ids(constraint, _named_tokens(constraint))
        inner = LLMatcher(byte_tokeniser(), _grammar(renumbered), log_level=0)
        if inner.is_error() and constraint.kind != "lark":
            raise _refusal(constraint, inner.get_error())
        inner.compute_bitmask()
    except BadRequest as error:
        return str(error)
    return ""


def load_llguidance() -> None:
    """Load what each trial needs."""
    compile_error(Constraint("json"))


def _refusal(constraint: Constraint, why: str) -> BadRequest:
    return BadRequest(f"{constraint_name(constraint)} cannot be used: {schema.plain_error(why)}")


def _byte_matcher(constraint: Constraint) -> ByteMatcher:
    """Return a grammar over bytes.

    One that names control tokens by their texts has no such form. Then no end is known before the
    limit, which `Closing` finds out by trying: any text does for that.
    """
    from llguidance import LLMatcher

    inner = LLMatcher(byte_tokeniser(), _grammar(constraint), log_level=0)
    if inner.is_error():
        anything = LLMatcher.grammar_from_regex("(?s:.*)")
        inner = LLMatcher(byte_tokeniser(), anything, log_level=0)
    return ByteMatcher(inner)


def _growth_bytes(constraint: Constraint) -> int | None:
    if constraint.kind == "json":
        return ANY_JSON_GROWTH_BYTES
    if constraint.kind == "json_schema":
        return ANY_JSON_GROWTH_BYTES + schema.max_growth_bytes(json.loads(constraint.source))
    return None


def _literals(source: str) -> Iterable[bytes]:
    """Yield the literal texts of a Lark grammar, schemas within it left out."""
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
    """Write them by their numbers in the vocabulary of bytes."""
    if not numbers:
        return constraint
    places = {number: named_token_id(place) for place, number in enumerate(numbers)}

    def renumbered(found: re.Match[str]) -> str:
        return f"<[{places.get(int(found[1]), END_SIGN)}]>"

    return replace(constraint, source=_TOKEN_BY_NUMBER.sub(renumbered, constraint.source))


def _grammar(constraint: Constraint) -> str:
    """Write a constraint as llguidance takes it."""
    from llguidance import LLMatcher

    if constraint.kind in ("json", "json_schema"):
        return schema.schema_grammar(parse_schema(constraint))
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    return LLMatcher.grammar_from_lark(constraint.source)


def parse_schema(constraint: Constraint) -> Any:
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


def checked_schema(constraint: Constraint) -> Any:
    """Return the JSON Schema of a `json` or `json_schema` constraint.

    Raises:
        BadRequest: an answer cannot be held to it, with every place.
    """
    value = parse_schema(constraint)
    problems = schema.check_schema(value)
    if problems:
        told = "\n".join(f"  {problem}" for problem in problems[:MOST_SHOWN_PROBLEMS])
        raise BadRequest(f"an answer cannot be held to the JSON Schema:\n{told}")
    return value
