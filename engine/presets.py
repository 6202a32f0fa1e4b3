"""What a model's own settings add to a request: sampling values, system text, messages, template.

Pure. They come from a Modelfile, by way of `ModelFacts`; what the request says goes before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paddock.engine.request import (
    ChatRequest,
    Message,
    ModelFacts,
    Sampling,
    resolve_sampling,
)


def sampling_of(request: ChatRequest, facts: ModelFacts) -> Sampling:
    """Merge sampling values: the request's, the spec's, the model's own, the caller's defaults.

    Raises:
        BadRequest: a name that is not known, or a value that cannot be used.
    """
    return resolve_sampling(request.params, request.model.params, facts.params, request.defaults)


def with_presets(request: ChatRequest, facts: ModelFacts) -> ChatRequest:
    """Give a request with what its model says before each conversation; raw prompts stay bare."""
    if request.prompt is not None and request.suffix is None:
        return request
    return replace(
        request,
        # Tokens of an earlier answer have the model's own messages in them already.
        messages=opened(request.messages, facts, is_new=not request.prompt_tokens),
        template=request.template or facts.template,
    )


def opened(
    messages: Sequence[Message], facts: ModelFacts, *, is_new: bool = True
) -> tuple[Message, ...]:
    """Give a conversation with its model's beginning: system text first, then messages.

    A request's own system turns take the place of the model's, and stand before its messages, as
    many templates take one at the very beginning only.
    """
    told = tuple(messages)
    if not told:
        return told
    n_system = next((n for n, one in enumerate(told) if one.role != "system"), len(told))
    system = (Message("system", facts.system),) if facts.system and not n_system else ()
    own = facts.messages if is_new else ()
    return (*system, *told[:n_system], *own, *told[n_system:])
