from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.cli.conversation import ChatConversation
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.cli.slash_commands import SlashCommands
from paddock.runner.daemon.service_client import ServiceError

CARD = {
    "capabilities": ["completion", "thinking"],
    "details": {"family": "llama"},
    "license": "Apache",
    "parameters": "top_k                          1",
}


class Service:
    def __init__(self) -> None:
        self.requests: list[tuple[str, Mapping[str, Any]]] = []

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.requests.append((path, body))
        return dict(CARD)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        self.requests.append((path, body))
        yield {"status": "success"}


def slash_commands(**options: Any) -> SlashCommands:
    service: Any = Service()
    return SlashCommands(service, ChatConversation("m", **options))


def test_settings_change_the_session(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    commands = slash_commands(abilities=frozenset({"thinking"}))
    for text in (
        "/set parameter temperature 0.2",
        "/set parameter stop a b",
        "/set system Be brief.\nVery.",
        f"/set format {schema}",
        "/set think high",
        "/set verbose",
    ):
        commands.execute(text)
    session = commands.session
    assert session.options == {"temperature": 0.2, "stop": ["a", "b"]}
    assert session.system == "Be brief.\nVery."
    assert session.format == {"type": "object"}
    assert session.think == "high"
    assert session.is_verbose
    for text in ("/set noformat", "/set nothink", "/set quiet", "/set system"):
        commands.execute(text)
    assert session == ChatConversation(
        "m", frozenset({"thinking"}), options=session.options, think=False
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/frob", "There is no command '/frob'. /? shows them."),
        ("/set parameter temprature 1", "there is no parameter 'temprature'. Did you mean"),
        ("/set parameter top_k much", "parameter 'top_k' must be a whole number, not 'much'"),
        ("/set parameter top_k", "Write it as /set parameter temperature 0.2."),
        ("/set parameter", "Write it as /set parameter temperature 0.2."),
        ("/set think much", "'much' is not a level. Known: low, medium, high, max."),
        ("/set think", "'m' does not reason before it answers."),
        ("/set format nowhere.json", "There is no file 'nowhere.json'."),
        (
            "/show me",
            "Use /show with one of: info, license, modelfile, parameters, system, template.",
        ),
        ("/load", "Name a model: /load MODEL."),
        ("/save", "Name the new model: /save MODEL."),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(text: str, words: str) -> None:
    commands = slash_commands()
    with pytest.raises(ServiceError) as caught:
        commands.execute(text)
    assert str(caught.value).startswith(words)
    assert commands.session == ChatConversation("m")


def test_an_unknown_setting_lists_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    slash_commands().execute("/set frob")
    printed = capsys.readouterr().err
    assert printed.startswith("There is no setting 'frob'.\n")
    assert "/set parameter NAME VALUE" in printed


def test_another_model_is_looked_for_and_begins_again() -> None:
    commands = slash_commands()
    commands.session.add_question("one")
    commands.execute("/load n")
    assert (commands.session.model, commands.session.turns) == ("n", [])
    assert commands.session.abilities == {"completion", "thinking"}


def test_a_conversation_is_saved_as_a_model() -> None:
    commands = slash_commands(system="Be brief.", options={"top_k": 1})
    commands.session.add_question("one", ["aGk="])
    commands.session.add_answer("two", "hm")
    commands.execute("/save mine")
    service: Any = commands.service
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    recipe = {"from": "m", "system": "Be brief.", "parameters": {"top_k": 1}, "messages": turns}
    assert service.requests == [("/api/create", {"model": "mine", **recipe})]


def test_the_model_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    commands = slash_commands(options={"top_k": 2})
    commands.execute("/show license")
    assert capsys.readouterr().out == "Apache\n"
    commands.execute("/show parameters")
    assert capsys.readouterr().out == (
        "top_k                          1\nSet here:\ntop_k                          2\n"
    )
    commands.execute("/show template")
    assert capsys.readouterr().out == "The model has no template.\n"
    commands.execute("/show")
    assert capsys.readouterr().out.startswith("  Model\n    architecture  llama\n")


def test_the_conversation_is_forgotten_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    commands = slash_commands()
    commands.session.add_question("one")
    commands.execute("/clear")
    assert commands.session.turns == []
    commands.execute("/?")
    assert "/bye" in capsys.readouterr().err
    commands.execute("/bye")
    assert commands.is_over


def test_a_file_is_loaded_by_its_path_and_cannot_be_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    commands = slash_commands()
    commands.execute("/load ./own.gguf")
    file = str(tmp_path / "own.gguf")
    assert commands.session.model == file
    with pytest.raises(ServiceError) as saved:
        commands.execute("/save mine")
    assert str(saved.value) == (
        f"'{file}' is a file, and only models of the store can be saved.\n"
        f"  Import it first: paddock pull {file}"
    )
    with pytest.raises(CommandError, match=r"no such file: './other.gguf'\."):
        commands.execute("/load ./other.gguf")
    assert commands.session.model == file
