from paddock.runner.cli.conversation import ChatConversation


def test_a_new_conversation_asks_for_nothing_but_the_answer() -> None:
    session = ChatConversation("m")
    session.add_question("Hello")
    assert session.chat_request() == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
    }


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
