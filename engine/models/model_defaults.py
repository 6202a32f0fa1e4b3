"""A model's defaults in a request: sampling values, system text, messages and template.

They come from its Modelfile; those of the request take precedence.
"""

from __future__ import annotations

from collections.abc import Sequence

from paddock.engine.request import ChatRequest, Message, ModelFacts, Sampling, resolve_sampling
from paddock.engine.system.records import replace


def merged_sampling(request: ChatRequest, facts: ModelFacts) -> Sampling:
    """Merge sampling values: the request's, the spec's, the model's own, the caller's defaults."""
    return resolve_sampling(request.params, request.model.params, facts.params, request.defaults)


def with_model_defaults(request: ChatRequest, facts: ModelFacts) -> ChatRequest:
    """Return a request with its model's system text, messages and template.

    A raw prompt stays as it is.
    """
    if request.prompt is not None:
        return request
    return replace(
        request,
        # The tokens of an earlier answer already contain the model's messages.
        messages=with_model_messages(request.messages, facts, is_new=not request.prompt_tokens),
        template=request.template or facts.template,
    )


def with_model_messages(
    messages: Sequence[Message], facts: ModelFacts, *, is_new: bool = True
) -> tuple[Message, ...]:
    """Return a conversation that begins with its model's system text and messages.

    A request's own system turns replace the model's; they stay at the beginning, because many
    templates accept them only there.
    """
    turns = tuple(messages)
    if not turns:
        return turns
    n_system = next((n for n, turn in enumerate(turns) if turn.role != "system"), len(turns))
    system = (Message("system", facts.system),) if facts.system and not n_system else ()
    own = facts.messages if is_new else ()
    return (*system, *turns[:n_system], *own, *turns[n_system:])
