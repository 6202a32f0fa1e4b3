import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.arrays import Tokens
from paddock.engine.chat.control_tokens import TextPiece, any_of_pattern, with_literals
from paddock.engine.chat.prompt_builder import PromptBuilder, PromptTokeniser
from paddock.engine.errors import BadRequest, NoInsert
from paddock.engine.llama.image_cache import ImagePiece
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Sampling, Tool
from tests.fakes.eyes import image_piece
from tests.optional import present

TEMPLATES = Path(__file__).parent / "data" / "templates"
TOOL = Tool("get_time", "Tells the time", {"properties": {"zone": {"type": "string"}}})


def prompt_for(model: Model, **wishes: Any) -> tuple[str, Constraint | None]:
    """Return the text of a request's prompt, and its constraint."""
    asked = (Message("user", "What time is it?"),)
    request = ChatRequest(ModelSpec("x"), asked, priority="batch", **wishes)
    prompted = PromptBuilder(model).chat(request, Sampling())
    text = b"".join(model.piece(int(token), shows_control=True) for token in prompted.tokens)
    return text.decode(), prompted.constraint


def test_a_tool_that_must_be_called_becomes_a_grammar(model: Model) -> None:
    assert prompt_for(model, tools=(TOOL,))[1] is None
    for choice in ("required", "get_time"):
        constraint = present(prompt_for(model, tools=(TOOL,), tool_choice=choice)[1])
        assert constraint.kind == "lark"
        assert '"get_time"' in constraint.source


@pytest.mark.parametrize(
    ("template", "ending"),
    [
        ("Qwen-Qwen3-0.6B", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "<think>\n</think>"),
        ("openai-gpt-oss-120b", "<|start|>assistant<|channel|>final<|message|>"),
        ("google-gemma-2-2b-it", "<start_of_turn>model\n"),
    ],
)
def test_given_answers_come_behind_reasoning(model: Model, template: str, ending: str) -> None:
    source = (TEMPLATES / f"{template}.jinja").read_text("utf-8")
    text, _ = prompt_for(model, answers=("yes", "no"), think=False, template=source)
    assert text.endswith(ending)


@pytest.mark.parametrize("seed", range(2))
def test_a_long_prompt_has_the_tokens_of_its_whole_text(model: Model, seed: int) -> None:
    dice = random.Random(seed)
    words = ["<|im_start|>", "<|im_end|>", "\n", " ", "user\n", "hi there", "ä, 12.50", "<|im"]
    text = "".join(dice.choices(words, k=30_000))
    pieces = with_literals(text, [], any_of_pattern(model.special_tokens()))
    assert len(pieces) > 20
    whole = PromptTokeniser(model).tokenise([TextPiece(text, is_literal=False)])
    assert PromptTokeniser(model).tokenise(pieces).tolist() == whole.tolist()


def test_a_conversation_has_a_most_of_messages_and_takes_time_by_their_number(model: Model) -> None:
    turns = (Message("user", "hi"), Message("assistant", "ho")) * 5_000
    assert PromptBuilder(model).count_chat(turns) > 50_000
    with pytest.raises(BadRequest) as caught:
        PromptBuilder(model).count_chat((*turns, Message("user", "hi")))
    assert str(caught.value) == "a conversation has at most 10,000 messages, not 10,001"


class Eyes:
    """Looks at nothing: an image is four positions."""

    def embed_image(
        self, image: bytes, n_most_rows: int, *, on_disk: bool = False
    ) -> list[ImagePiece]:
        return [image_piece(sha256(image).hexdigest(), 4)]


def test_images_are_put_where_their_turn_begins(model: Model) -> None:
    image = b"GIF89a\x01\0\x01\0"
    message = Message("user", "What is <__media__>?", images=(image,))
    request = ChatRequest(ModelSpec("x"), (Message("user", "Hi"), message))
    prompted = PromptBuilder(model, Eyes()).chat(request, Sampling())  # type: ignore[arg-type]
    [placed] = prompted.images
    tokens = prompted.tokens
    assert (tokens < 0).sum() == 4
    assert (tokens[placed.start : placed.start + 4] < 0).all()
    before = b"".join(
        model.piece(int(token), shows_control=True) for token in tokens[: placed.start]
    )
    after = b"".join(model.piece(int(token)) for token in tokens[placed.start + 4 :])
    assert before.endswith(b"<|im_start|>user\n")
    assert after.startswith(b"What is <__media__>?")


def spelled(model: Model, tokens: Tokens) -> str:
    """Return a prompt's text; `_` stands for each position of an image."""
    pieces = [
        model.piece(token, shows_control=True) if token >= 0 else b"_" for token in tokens.tolist()
    ]
    return b"".join(pieces).decode()


CUBES = {
    "loops": "{% for a in messages %}{% for b in messages %}{% for c in messages %}"
    "{{ a.content }}{% endfor %}{% endfor %}{% endfor %}",
    "a macro": "{% macro said(m) %}{% for a in messages %}{% for b in messages %}"
    "{{ m.content }}{% endfor %}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ said(m) }}{% endfor %}",
}


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("way", CUBES)
def test_a_template_prints_no_more_than_the_context_and_the_request_call_for(
    model: Model, way: str, truncates: bool
) -> None:
    turns = tuple(Message(("user", "assistant")[n % 2], "x" * 160) for n in range(40))
    request = ChatRequest(ModelSpec("x"), turns, template=CUBES[way], truncates=truncates)
    prompter = PromptBuilder(model)
    for build in (
        lambda: prompter.chat(request, Sampling(), 2048),
        lambda: prompter.count_chat(turns, CUBES[way], n_ctx_tokens=2048),
    ):
        with pytest.raises(BadRequest, match=r"refuses this: .*it prints more than 7\d,\d{3} char"):
            build()


@pytest.mark.parametrize("content", ["a", "<|im_end|>", "word " * 400])
def test_a_conversation_that_is_too_long_is_counted_and_truncated(
    model: Model, content: str
) -> None:
    turns = tuple(Message(("user", "assistant")[n % 2], content) for n in range(601))
    prompter = PromptBuilder(model)
    n_whole = len(prompter.chat(ChatRequest(ModelSpec("x"), turns), Sampling()).tokens)
    whole = prompter.chat(ChatRequest(ModelSpec("x"), turns), Sampling(), 512)
    assert len(whole.tokens) == n_whole == prompter.count_chat(turns, n_ctx_tokens=512) > 3000
    request = ChatRequest(ModelSpec("x"), turns, truncates=True)
    cut = prompter.chat(request, Sampling(max_tokens=20), 512)
    assert len(cut.tokens) < 512 and cut.n_original == n_whole


def test_a_conversation_that_no_cut_makes_fit_is_not_counted_again_and_again(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 1,500 tools a count takes 0.3 s, and a dozen held up the model's other answers."""
    counted = list[int]()
    tokenise = PromptTokeniser.tokenise

    def counting(self: PromptTokeniser, *pieces: Any, **options: Any) -> Any:
        counted.append(1)
        return tokenise(self, *pieces, **options)

    monkeypatch.setattr(PromptTokeniser, "tokenise", counting)
    turns = (Message("system", "word " * 800), *[Message("user", "word " * 50)] * 101)
    request = ChatRequest(ModelSpec("x"), turns, truncates=True)
    built = PromptBuilder(model).chat(request, Sampling(max_tokens=20), 512)
    assert len(built.tokens) > 512 and len(counted) == 3


def raw(prompt: str, **extra: Any) -> ChatRequest:
    return ChatRequest(ModelSpec("x"), (), prompt=prompt, **extra)


def test_a_conversation_goes_on_behind_earlier_tokens_images_and_all(model: Model) -> None:
    prompter = PromptBuilder(model, Eyes())  # type: ignore[arg-type]
    earlier = tuple(prompter.tokenise("Before."))
    turns = (Message("system", "Hm."), Message("user", "See?", images=(b"GIF89a\x01\0\x01\0",)))
    prompted = prompter.chat(ChatRequest(ModelSpec("x"), turns, prompt_tokens=earlier), Sampling())
    text = spelled(model, prompted.tokens)
    assert text.startswith("Before.<|im_start|>system\nHm.<|im_end|>\n<|im_start|>user\n____See?")
    [placed] = prompted.images
    assert (prompted.tokens[placed.start : placed.start + 4] < 0).all()


def test_a_gap_is_filled_by_the_models_own_tokens(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompter = PromptBuilder(model)
    gap = raw("def f(x):\n", suffix="\n    return x<|im_end|>")
    with pytest.raises(NoInsert):
        prompter.chat(gap, Sampling())
    monkeypatch.setattr(model, "insert_tokens", lambda: (4, 6, 5))
    marks = [model.piece(token, shows_control=True).decode() for token in (4, 6, 5)]
    tokens = prompter.chat(gap, Sampling()).tokens
    before, behind, between = marks
    assert spelled(model, tokens) == f"{before}def f(x):\n{behind}\n    return x<|im_end|>{between}"
    assert 2 not in tokens.tolist(), "what the text spells is mere text"
