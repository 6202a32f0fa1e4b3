"""What a model's own settings add to a request."""

from __future__ import annotations

from dataclasses import replace

from paddock.engine.models.model_facts import (
    merged_sampling,
    with_model_defaults,
    with_model_messages,
)
from paddock.engine.request import ChatRequest, Message, ModelFacts, ModelSpec

FACTS = ModelFacts(
    "m", "/m.gguf", "d", 1, "llama", "chat", 2048, 2048,
    params={"temperature": 0.3, "top_k": 7, "min_p": 0.2},
    template="{{ .Prompt }}!",
    system="You are a llama.",
    messages=(Message("user", "Hum."), Message("assistant", "Hmm.")),
)  # fmt: skip
ASKED = Message("user", "Spit?")


def said(*messages: Message) -> list[str]:
    return [one.content for one in messages]


def test_what_is_more_specific_goes_first_among_sampling_values() -> None:
    spec = ModelSpec("m", params={"top_k": 8, "top_p": 0.5})
    defaults = {"min_p": 0.1, "top_p": 0.4, "top_k": 1, "seed": 5, "temperature": 0.8}
    request = ChatRequest(spec, (), {"top_p": 0.6}, defaults=defaults)
    sampling = merged_sampling(request, FACTS)
    assert (sampling.top_p, sampling.top_k, sampling.temperature) == (0.6, 8, 0.3)
    assert (sampling.min_p, sampling.seed, sampling.repeat_penalty) == (0.2, 5, 1.0)


def test_a_model_says_its_own_words_before_a_conversation() -> None:
    request = with_model_defaults(ChatRequest(ModelSpec("m"), (ASKED,)), FACTS)
    assert said(*request.messages) == ["You are a llama.", "Hum.", "Hmm.", "Spit?"]
    assert request.template == "{{ .Prompt }}!"
    own = with_model_defaults(replace(request, messages=(ASKED,), template="mine"), FACTS)
    assert own.template == "mine"


def test_a_system_turn_of_the_request_takes_the_place_of_the_models() -> None:
    turns = with_model_messages((Message("system", "You are a cow."), ASKED), FACTS)
    assert said(*turns) == ["You are a cow.", "Hum.", "Hmm.", "Spit?"]
    late = with_model_messages((ASKED, Message("system", "Now moo."), ASKED), FACTS)
    assert said(*late) == ["You are a llama.", "Hum.", "Hmm.", "Spit?", "Now moo.", "Spit?"]


def test_a_raw_prompt_stays_bare_and_earlier_tokens_have_the_messages_already() -> None:
    raw = ChatRequest(ModelSpec("m"), (), prompt="Once")
    assert with_model_defaults(raw, FACTS) is raw
    insert = with_model_defaults(replace(raw, suffix="end"), FACTS)
    assert (insert.messages, insert.template) == ((), FACTS.template), "it may have `.Suffix`"
    later = with_model_defaults(ChatRequest(ModelSpec("m"), (ASKED,), prompt_tokens=(1, 2)), FACTS)
    assert said(*later.messages) == ["You are a llama.", "Spit?"]
    assert with_model_defaults(ChatRequest(ModelSpec("m"), ()), FACTS).messages == ()
