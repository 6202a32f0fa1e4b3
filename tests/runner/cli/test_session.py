"""What a request is made of while a conversation goes on."""

from __future__ import annotations

from paddock.runner.cli.conversation import ChatConversation


def test_a_new_conversation_asks_for_nothing_but_the_answer() -> None:
    session = ChatConversation("m")
    session.asked("Hello")
    assert session.body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_what_is_set_goes_along_with_each_request() -> None:
    session = ChatConversation(
        "m", system="Be brief.", think=False, keep_alive_s=0.0, format="json"
    )
    session.options["temperature"] = 0.2
    session.asked("Look", ["aGk="])
    assert session.body() == {
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


def test_a_question_without_an_answer_is_taken_back() -> None:
    session = ChatConversation("m")
    session.asked("one")
    session.answered("two", "hm")
    session.take_back()
    assert [turn["role"] for turn in session.turns] == ["user", "assistant"]
    session.asked("three")
    session.take_back()
    assert len(session.turns) == 2


def test_another_model_begins_anew_with_what_is_set() -> None:
    session = ChatConversation("m", frozenset({"thinking"}), think="high", system="Be brief.")
    session.asked("one")
    session.change_model("n", frozenset({"vision"}))
    assert (session.turns, session.think, session.system) == ([], None, "Be brief.")
    assert session.sees


def test_a_conversation_becomes_a_models_recipe() -> None:
    session = ChatConversation("m", system="Be brief.", options={"top_k": 1})
    session.asked("one", ["aGk="])
    session.answered("two", "hm")
    assert session.recipe("new") == {
        "model": "new",
        "from": "m",
        "system": "Be brief.",
        "parameters": {"top_k": 1},
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
        ],
    }
