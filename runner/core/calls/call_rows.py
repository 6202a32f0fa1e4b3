"""Row of a model call in the ledger: key and reply."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from msgspec.structs import fields

from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelSpec,
    PackedVectors,
    Reply,
    TokenLogprob,
    resolve_sampling,
)
from paddock.engine.system.records import Struct, replace
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.ledger.entries import CallRow
from paddock.steps.llm.token_probabilities import LEAST_ALTERNATIVE, own_tokens


def embed_key(request: EmbedRequest, digest: str) -> dict[str, Any]:
    key: dict[str, Any] = {"texts": request.texts, "digest": digest}
    key |= {} if request.dimensions is None else {"dimensions": request.dimensions}
    return key | ({"on_overflow": "split"} if request.on_overflow == "split" else {})


def chat_key(request: ChatRequest, digest: str) -> dict[str, Any]:
    sampling = resolve_sampling(request.params, request.model.params, request.defaults)
    fields = _not_default(replace(request, messages=(), images=(), model=ModelSpec("")))
    return {
        **{name: value for name, value in fields.items() if name not in _UNDECISIVE_FIELDS},
        "messages": [_message_key(message) for message in request.messages],
        "sampling": _not_default(sampling),
        "digest": digest,
        "ctx": request.model.n_ctx_tokens if sampling.max_tokens is None else None,
        **({"images": _image_digests(request.images)} if request.images else {}),
    }


_UNDECISIVE_FIELDS = frozenset(
    ("model", "params", "defaults", "priority", "total_s", "idle_s", "drafts", "shifts",
     "wants_tokens", "keeps_images")
)  # fmt: skip
"""Of a request: on these no answer depends, or its sampling has them."""


def _not_default(record: Struct) -> dict[str, Any]:
    """Return fields but those equal to their defaults, of which `to_plain` writes some out."""
    own, plain = _defaults(type(record)), to_plain(record).items()
    return {name: value for name, value in plain if getattr(record, name) != own[name]}


@cache  # it reads the class's annotations, which takes as long as the rest of a key
def _defaults(record: type[Struct]) -> Mapping[str, Any]:
    return {field.name: field.default for field in fields(record)}


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
        TokenLogprob(
            token.raw,
            round(token.logprob, 4),
            [
                (raw, round(logprob, 4))
                for raw, logprob in token.top
                if raw != token.raw and math.exp(logprob) >= LEAST_ALTERNATIVE
            ],
        )
        for token in own_tokens(reply.text, reply.logprobs)
    )


def cached_reply(row: CallRow) -> Reply:
    return replace(from_plain(Reply, row.usage), text=row.reply.decode())


def vectors_columns(reply: EmbedReply) -> dict[str, Any]:
    """Return the values of a row that has vectors: `[0, n]` in its JSON says where they lie."""
    n_rows, packed = reply.vectors.n_rows, reply.vectors.packed
    rest = to_plain(replace(reply, vectors=PackedVectors.of([])))
    return {"usage": {**rest, "vectors": [n_rows, [0, len(packed)]]}, "reply": packed}


def cached_vectors(row: CallRow) -> EmbedReply:
    rest = from_plain(EmbedReply, {**row.usage, "vectors": [0, ""]})
    return replace(rest, vectors=PackedVectors(row.usage["vectors"][0], row.reply))
