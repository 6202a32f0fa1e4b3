"""Row of a model call in the ledger: key and reply."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelSpec,
    Reply,
    TokenLogprob,
    resolve_sampling,
)
from paddock.engine.system.records import replace
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.ledger.entries import CallRow
from paddock.steps.llm.token_probabilities import LEAST_ALTERNATIVE, own_tokens


def embed_key(request: EmbedRequest, digest: str) -> dict[str, Any]:
    key: dict[str, Any] = {"texts": request.texts, "digest": digest}
    key |= {} if request.dimensions is None else {"dimensions": request.dimensions}
    return key | ({"on_overflow": "split"} if request.on_overflow == "split" else {})


def chat_key(request: ChatRequest, digest: str) -> dict[str, Any]:
    sampling = resolve_sampling(request.params, request.model.params, request.defaults)
    fields = to_plain(replace(request, messages=(), images=(), model=ModelSpec("")))
    return {
        **{name: value for name, value in fields.items() if name not in _UNDECISIVE_FIELDS},
        "messages": [_message_key(message) for message in request.messages],
        "sampling": to_plain(sampling),
        "digest": digest,
        "ctx": request.model.n_ctx_tokens if sampling.max_tokens is None else None,
        **({"images": _image_digests(request.images)} if request.images else {}),
    }


_UNDECISIVE_FIELDS = frozenset(
    ("model", "params", "defaults", "priority", "total_s", "idle_s", "drafts", "shifts",
     "wants_tokens", "keeps_images")
)  # fmt: skip
"""Of a request: on these no answer depends, or its sampling has them."""


def _message_key(message: Message) -> list[Any]:
    extra = to_plain(replace(message, role="", content="", images=()))
    del extra["role"], extra["content"]
    if message.images:
        extra["images"] = _image_digests(message.images)
    return [message.role, message.content, *([extra] if extra else [])]


def _image_digests(images: Sequence[bytes]) -> list[str]:
    return [hashlib.sha256(image).hexdigest() for image in images]


def recorded_logprobs(reply: Reply) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of the tokens of an answer's text, rounded.

    Each has the alternatives that count.
    """
    return tuple(
        replace(
            token,
            logprob=round(token.logprob, 4),
            top=tuple(
                (text, round(logprob, 4), raw)
                for text, logprob, raw in token.top
                if raw != token.raw and math.exp(logprob) >= LEAST_ALTERNATIVE
            ),
        )
        for token in own_tokens(reply.text, reply.logprobs)
    )


def cached_reply(row: CallRow) -> Reply:
    return replace(from_plain(Reply, row.usage), text=row.reply.decode())


def cached_vectors(row: CallRow) -> EmbedReply:
    return from_plain(EmbedReply, row.usage, row.reply)
