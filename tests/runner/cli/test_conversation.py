"""One answer to one question: what is asked, shown as it comes, stopped, failed, told of."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.cli import conversation
from paddock.runner.cli.chat_terminal import PlainAnswer
from paddock.runner.cli.conversation import ChatConversation
from paddock.runner.daemon.service_client import ServiceError


class Service:
    def __init__(self, *pieces: dict[str, Any] | BaseException, card: Any = None) -> None:
        self.pieces = pieces
        self.card = card or {"capabilities": ["completion"]}
        self.bodies: list[Mapping[str, Any]] = []
        self.was_closed = False

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.card)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        self.bodies.append(body)
        try:
            for piece in self.pieces:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            self.was_closed = True


def fake(*pieces: dict[str, Any] | BaseException, card: Any = None) -> Any:
    """Make a service, of a type that takes the real one's place."""
    return Service(*pieces, card=card)


def piece(content: str = "", **fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **fields}, "done": False}


LAST = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}


def test_an_answer_is_shown_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    service, session = (
        fake(piece("", thinking="hm"), piece("Y"), piece("es."), LAST),
        ChatConversation("m"),
    )
    conversation.add_question(session, "Is it?")
    conversation.stream_answer(service, session, PlainAnswer())
    assert capsys.readouterr() == ("Yes.\n", "")
    assert session.turns[-1] == {"role": "assistant", "content": "Yes.", "thinking": "hm"}


def test_a_stopped_answer_ends_the_request_and_keeps_what_came() -> None:
    service, session = fake(piece("Y"), KeyboardInterrupt()), ChatConversation("m")
    conversation.add_question(session, "Is it?")
    with pytest.raises(conversation.AnswerInterrupted):
        conversation.stream_answer(service, session, PlainAnswer())
    assert service.was_closed
    assert session.turns[-1] == {"role": "assistant", "content": "Y"}


def test_a_question_that_failed_is_forgotten() -> None:
    service, session = fake(ServiceError("busy", 503)), ChatConversation("m")
    conversation.add_question(session, "Is it?")
    with pytest.raises(ServiceError):
        conversation.stream_answer(service, session, PlainAnswer())
    assert session.turns == []


def test_it_is_told_when_something_was_cut(capsys: pytest.CaptureFixture[str]) -> None:
    last = {**LAST, "truncated": True, "prompt_tokens_original": 5200, "done_reason": "length"}
    session = ChatConversation("m")
    conversation.add_question(session, "Is it?")
    conversation.stream_answer(fake(piece("Yes."), last), session, PlainAnswer())
    assert capsys.readouterr().err == (
        "(The conversation has 5,200 tokens, more than the context holds: its oldest turns were "
        "left out. /clear starts a new one.)\n"
        "(The answer reached its limit; /set parameter num_predict changes it.)\n"
    )


def test_images_are_for_models_that_see(tmp_path: Path) -> None:
    image = tmp_path / "cat.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    blind, seeing = ChatConversation("m"), ChatConversation("m", frozenset({"vision"}))
    with pytest.raises(ServiceError, match="'m' does not take images"):
        conversation.add_question(blind, "What is it?", [image])
    conversation.add_question(blind, f"What is {image}?")
    assert blind.turns == [{"role": "user", "content": f"What is {image}?"}]
    conversation.add_question(seeing, f"What is {image} ?")
    assert seeing.turns[0]["content"] == "What is ?"
    assert len(seeing.turns[0]["images"]) == 1


def test_what_is_set_goes_along_with_each_request() -> None:
    session = ChatConversation(
        "m", system="Be brief.", think=False, keep_alive_s=0.0, format="json"
    )
    session.options["temperature"] = 0.2
    session.add_question("Look", ["aGk="])
    assert session.chat_request() == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": ["aGk="]},
        ],
        "options": {"temperature": 0.2},
        "format": "json",
        "think": False,
        "keep_alive": 0.0,
    }


def test_times_and_rates_are_told() -> None:
    last = {
        "total_duration": 2_500_000_000,
        "load_duration": 1_000_000_000,
        "queue_duration": 1_000,
        "prompt_eval_count": 120,
        "prompt_eval_duration": 200_000_000,
        "cached_tokens": 100,
        "eval_count": 50,
        "eval_duration": 1_250_000_000,
    }
    assert conversation.timings_text(last) == (
        "total   2.5 s\n"
        "load    1.0 s\n"
        "prompt  120 tokens in 0.2 s, 100 tokens/s, 100 cached\n"
        "answer  50 tokens in 1.2 s, 40 tokens/s"
    )


def test_a_new_conversation_asks_for_nothing_but_the_answer() -> None:
    session = ChatConversation("m")
    session.add_question("Hello")
    assert session.chat_request() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_a_question_without_an_answer_is_taken_back() -> None:
    session = ChatConversation("m")
    session.add_question("one")
    session.add_answer("two", "hm")
    session.drop_question()
    assert [turn["role"] for turn in session.turns] == ["user", "assistant"]
    session.add_question("three")
    session.drop_question()
    assert len(session.turns) == 2


def test_another_model_begins_again_with_what_is_set() -> None:
    session = ChatConversation("m", frozenset({"thinking"}), think="high", system="Be brief.")
    session.add_question("one")
    session.change_model("n", frozenset({"vision"}))
    assert (session.turns, session.think, session.system) == ([], None, "Be brief.")
    assert session.accepts_images


def test_what_is_not_told_is_left_out() -> None:
    assert conversation.timings_text({}) == ""
    assert conversation.timings_text({"prompt_eval_count": 1}) == "prompt  1 token"
