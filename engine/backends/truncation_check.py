"""Truncation check: whether a server without a tokenizer endpoint reads whole prompts.

A server may cut a prompt that exceeds its context and report no error. Its own count of prompt
tokens shows that only where the true length is known. So a probe, a filler text of known length,
goes out before the first prompt that may be longer than what is confirmed. Later answers are
compared with earlier ones; what looks like a cut is decided by another probe. A server that
reports more than it read cannot be detected.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from paddock.engine.errors import BadRequest, PromptCut, PromptTooLong
from paddock.engine.request import Usage
from paddock.engine.system.files import read_json_object, write_json_atomically
from paddock.engine.system.records import Struct, known_record
from paddock.engine.system.units import DAY_S

from .model_discovery import ServedModel
from .openai_client import ServerConnection
from .openai_codec import StreamDecoder
from .token_bounds import MESSAGE_TOKENS, OPENING_TOKENS
from .token_counting import TokenCount

CHAT_TOKENS, EMBED_TOKENS = 512, 128
"""What every server is taken to read: no chat model has a smaller context, and no text model cuts
earlier (sentence-transformers' smallest `max_seq_length`)."""
FRESH_S = DAY_S
"""A server may be restarted with another context: a confirmation on the disk counts for a day."""
PROBE_S = 600.0
"""For reading a probe, where the request that waits for it has no time of its own."""
_AROUND_TOKENS = {"chat": OPENING_TOKENS + MESSAGE_TOKENS, "embed": 2}
"""What the upper bound of a prompt allows for a template, or of a text for its marks."""
_ANSWER_TOKENS = 16  # reasoning models of OpenAI refuse a request for a single token
_MANY_ANSWERS = 8
_LOWEST_OF = 0.5  # of the lowest share seen; between languages of one run it differs by a third
_OTHER_LENGTH = 1.1

# Each is one token, with the space before it, in all of 21 vocabularies (BPE, SentencePiece and
# WordPiece of 30,000 to 262,000 tokens), so that n words are n tokens.
_WORDS = [
    "house", "water", "time", "name", "year", "world", "day", "life", "people", "work", "city",
    "book", "road", "river", "light", "power", "state", "place", "group", "school", "country",
    "family", "money", "night", "point", "market", "number", "question", "company", "system",
    "area", "job", "word", "business", "side", "kind", "head", "service", "friend", "hour",
    "game", "line", "end", "member", "law", "car", "team", "minute", "idea", "body", "face",
    "level", "office", "door", "health", "person", "art", "war", "history", "party", "result",
    "change", "morning", "reason", "research", "moment", "air", "force",
]  # fmt: skip


def filler(n_tokens: int) -> str:
    """Return a text of so many common words, another one at each call, so that no cache has it."""
    return " ".join(random.choices(_WORDS, k=n_tokens))


class ReadLimit(Struct):
    n_tokens: int
    """So long a prompt it was seen to read whole."""
    n_answers: int = 0
    lowest_share: float = 1.0
    """Lowest count of an answer by the upper bound of its prompt."""
    n_longest: int = 0
    """Highest count of an answer, and the upper bound of its prompt."""
    n_most_of_longest: int = 0
    leaves_out_cached: bool = False
    """It counts only what it had not cached, as older Ollamas and some gateways do."""

    def probe_tokens(self, n_most: int, n_ctx_tokens: int) -> int:
        """Return how long a probe must be before a prompt of at most `n_most` tokens; 0: none.

        It doubles, so that all probes together are at most twice as long as the context.
        """
        if n_most <= self.n_tokens:
            return 0
        return min(max(n_most, 2 * self.n_tokens), n_ctx_tokens)

    def is_odd(self, n_read: int, n_most: int) -> bool:
        """Return whether a count looks like a cut: it dropped, or is the highest one once more."""
        has_dropped = (
            self.n_answers >= _MANY_ANSWERS and n_read < _LOWEST_OF * self.lowest_share * n_most
        )
        longer, shorter = max(n_most, self.n_most_of_longest), min(n_most, self.n_most_of_longest)
        is_ceiling = n_read == self.n_longest and longer > _OTHER_LENGTH * shorter
        return has_dropped or (is_ceiling and n_read > CHAT_TOKENS)

    def add(self, n_read: int, n_most: int, *, is_single_text: bool = True) -> None:
        """Take an answer to a prompt, or a batch of texts, that was read whole."""
        self.n_answers += 1
        self.lowest_share = min(self.lowest_share, n_read / max(n_most, 1))
        if is_single_text:
            self.n_tokens = max(self.n_tokens, n_read)
        if n_read >= self.n_longest:
            self.n_longest, self.n_most_of_longest = n_read, n_most


class ReadLimits:
    """What is known of all servers; what probes confirmed is kept in a file."""

    def __init__(self, file: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._now = now
        self._known: dict[str, ReadLimit] = {}

    def of(self, url: str, digest: str, role: str) -> ReadLimit:
        key = _limit_key(url, digest, role)
        if key not in self._known:
            least = EMBED_TOKENS if role == "embed" else CHAT_TOKENS
            n_tokens, at = self._kept().get(key, (0, 0.0))
            is_fresh = 0 <= self._now() - at < FRESH_S
            self._known[key] = ReadLimit(max(least, n_tokens if is_fresh else 0))
        return self._known[key]

    def confirm(self, url: str, digest: str, role: str, n_tokens: int) -> None:
        limit = self.of(url, digest, role)
        limit.n_tokens = max(limit.n_tokens, n_tokens)
        if self._file is not None:
            kept = self._kept() | {_limit_key(url, digest, role): (n_tokens, self._now())}
            old = self._now() - FRESH_S
            with suppress(OSError):  # only a cache
                fresh = {key: entry for key, entry in kept.items() if entry[1] > old}
                write_json_atomically(self._file, fresh)

    def _kept(self) -> dict[str, tuple[int, float]]:
        if self._file is None:
            return {}
        kept = read_json_object(self._file)  # it saves a probe, no more
        return known_record(dict[str, tuple[int, float]], kept) or {}


class SentPrompt(Struct, frozen=True):
    """A prompt, or a batch of texts to embed, whose reading is checked."""

    looked: ServedModel
    count: TokenCount
    """Of all of it."""
    n_most_per_text: int
    """Upper bound of the longest text in it."""
    total_s: float | None


class TruncationCheck:
    """Checks what one server read; raises PromptCut where that is less than it was sent."""

    def __init__(
        self,
        line: ServerConnection,
        note: Callable[[str], None],
        limits: ReadLimits,
        *,
        can_count: bool,
    ) -> None:
        self._line = line
        self._note = note
        self._limits = limits
        self._can_count = can_count
        self._turn = asyncio.Lock()

    async def before(self, sent: SentPrompt) -> None:
        if not self._is_estimate(sent):
            return
        async with self._turn:  # others wait for the same answer
            n_ctx_tokens = sent.looked.facts.n_ctx_tokens
            n_tokens = self._limit(sent).probe_tokens(sent.n_most_per_text, n_ctx_tokens)
            if n_tokens:
                await self._probe(sent, n_tokens)

    async def after(self, sent: SentPrompt, usage: Usage) -> None:
        n_read, n_least, n_most = usage.prompt_tokens, sent.count.n_least, sent.count.n_most
        if not n_read:
            words = "does not say how much it reads; a prompt that it cuts would go unseen"
            self._note(f"{self._line.url} {words}.")
            return
        if not self._is_estimate(sent):
            if n_read < n_least:
                await self._refuse_cut(sent, n_read)
            return
        limit = self._limit(sent)
        if n_read < n_least:
            if limit.leaves_out_cached:
                return
            may_leave_out = sent.looked.kind == "ollama" or usage.prompt_reused_tokens > 0
            if not may_leave_out:
                await self._refuse_cut(sent, n_read)
            if not await self._reads_still(sent):
                raise PromptCut(self._line.url, n_read, n_least, is_servers_fault=True)
            limit.leaves_out_cached = True
            return
        if limit.is_odd(n_read, n_most):
            async with self._turn:
                await self._probe(sent, sent.n_most_per_text)
        limit.add(n_read, n_most, is_single_text=n_most == sent.n_most_per_text)

    async def _refuse_cut(self, sent: SentPrompt, n_read: int) -> NoReturn:
        """Raise PromptCut; a probe decides whether any text of this length is cut."""
        is_servers_fault = not await self._reads_still(sent)
        raise PromptCut(
            self._line.url, n_read, sent.count.n_least, is_servers_fault=is_servers_fault
        )

    async def _reads_still(self, sent: SentPrompt) -> bool:
        """Probe the server once more: tell whether it reads so long a prompt."""
        try:
            async with self._turn:
                await self._probe(sent, sent.n_most_per_text)
        except PromptCut:
            return False
        return True

    def _is_estimate(self, sent: SentPrompt) -> bool:
        return not self._can_count and not sent.looked.has_tokenizer

    def _limit(self, sent: SentPrompt) -> ReadLimit:
        facts = sent.looked.facts
        return self._limits.of(self._line.url, facts.digest, facts.role)

    async def _probe(self, sent: SentPrompt, n_tokens: int) -> None:
        """Raise PromptCut where the server reads less than a text that fills so many tokens."""
        within_s = min(sent.total_s or PROBE_S, PROBE_S)
        facts = sent.looked.facts
        n_words = max(1, n_tokens - _AROUND_TOKENS[facts.role])
        ask = self._read_text if facts.role == "embed" else self._read_chat
        self._note(
            f"{self._line.url} has no tokenizer to ask: a probe of {n_words} tokens shows whether "
            "it reads prompts so long."
        )
        try:
            async with asyncio.timeout(within_s):
                n_read = await ask(sent.looked.name, filler(n_words))
        except TimeoutError:
            self._note(
                f"{self._line.url} did not read a probe of {n_words} tokens within "
                f"{within_s:g} s; a prompt that it cuts could go unseen. With a `tokenizer` under "
                "the model's `pool` none is needed."
            )
            n_read = 0
        except (BadRequest, PromptTooLong):
            n_read = n_words  # it refuses what is too long, and so cuts nothing
        if 0 < n_read < n_words:
            raise PromptCut(self._line.url, n_read, n_words, is_probe=True)
        if n_read:
            self._limits.confirm(self._line.url, facts.digest, facts.role, n_tokens)
        else:
            self._limit(sent).n_tokens = n_tokens  # nothing can be learnt by asking again

    async def _read_chat(self, model: str, text: str) -> int:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.0,
            "max_tokens": _ANSWER_TOKENS,
        }
        decoder = StreamDecoder()
        async with self._line.events("/v1/chat/completions", body) as events:
            async for event in events:
                for _ in decoder.chunks(event):
                    pass
        return decoder.usage.prompt_tokens

    async def _read_text(self, model: str, text: str) -> int:
        body = {"model": model, "input": [text], "encoding_format": "float"}
        usage = (await self._line.post("/v1/embeddings", body, PROBE_S)).get("usage")
        n_read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return n_read if isinstance(n_read, int) else 0


def _limit_key(url: str, digest: str, role: str) -> str:
    return f"{url} {digest} {role}"
