"""The command line as a person or a machine meets it: words, streams, exit statuses, start-up."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner, Result

from paddock.runner.cli.application import GROUPS, SECTIONS, application
from paddock.runner.cli.arguments import parse_inputs
from paddock.runner.cli.exit_status import CommandError, with_exit_status
from paddock.runner.progress import printing
from tests.runner.cli.commands.shell import invoke

# Imports that would make a command slow, or drag in what it has no business with.
SLOW = ("prefect", "llama_cpp", "httpx", "sqlalchemy", "rich", "fastapi", "numpy")
# Rooms of ours that a pipeline without models has no use for.
OURS = (
    *("paddock.engine.request", "paddock.engine.models.model_finder", "paddock.engine.profile"),
    *("paddock.engine.models.model_names", "paddock.steps.llm.map_reduce"),
)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep state and caches out of the home of the person who runs the tests."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PADDOCK_HOME", str(folder))
    return folder


def imported_by(*commands: str, cwd: Path) -> set[str]:
    """Run commands in a process of its own; return the slow libraries that it imported."""
    code = (
        "import sys, json, os\n"
        "from paddock.runner.cli.application import main\n"
        f"for command in {commands!r}:\n"
        "    sys.argv = ['paddock', *command.split()]\n"
        "    os.environ['_TYPER_COMPLETE_ARGS'] = command\n"
        "    try: main()\n"
        "    except SystemExit as ended: assert not ended.code, command\n"
        f"seen = [m for m in {(*SLOW, *OURS)!r} if m in sys.modules]\n"
        "with open('seen', 'w') as file: json.dump(seen, file)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return set(json.loads((cwd / "seen").read_text()))


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A pipeline that needs no model."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_text("A letter.")
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "steps:\n"
        "  - {id: docs, uses: files.scan, with: {root: ./inbox}}\n"
        "  - id: each\n"
        "    for_each: doc in steps.docs.files\n"
        "    do:\n"
        "      - {id: text, uses: files.read, with: {path: '{{ doc.path }}'}}\n"
        "      - uses: files.write\n"
        "        with: {path: 'out/{{ doc.relpath }}', text: '{{ steps.text.text }}'}\n"
    )
    return file


def test_what_needs_no_pipeline_imports_nothing_slow(tmp_path: Path) -> None:
    commands = ("--help", "--version", "list", "config", "show all-minilm")
    assert not imported_by(*commands, cwd=tmp_path) & set(SLOW)


def test_what_checks_imports_nothing_slow(no_model: Path) -> None:
    here = no_model.parent
    assert not imported_by("validate pipeline.yaml", cwd=here) & {*SLOW, *OURS}
    assert not imported_by("schema", "steps", "steps --json", cwd=here) & {*SLOW}


def test_a_plan_and_a_local_run_import_no_engine_and_no_prefect(no_model: Path) -> None:
    for command in ("plan pipeline.yaml", *["run --local pipeline.yaml"] * 2):
        seen = imported_by(command, cwd=no_model.parent)
        assert seen <= {"asyncio", "paddock.engine.request"}, command


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("steps.letter.text", "Dear all,\n\nthe ferry is late.\n"),
        ("{n: 1 + 2, text: steps.letter.text}",
         "n: 3\ntext: |\n  Dear all,\n\n  the ferry is late.\n"),
        ("steps.letter.text | length", "30\n"),
    ],
)  # fmt: skip
def test_what_a_pipeline_returns_is_all_that_a_run_prints_on_stdout(
    written: str, printed: str, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("Dear all,\n\nthe ferry is late.\n")
    (tmp_path / "pipeline.yaml").write_text(
        "steps: [{id: letter, uses: files.read, with: {path: letter.txt}}]\n"
        f"returns: {written}\n"
    )
    ran = invoke("run", "--local", str(tmp_path))
    assert (ran.exit_code, ran.stdout) == (0, printed)
    assert "Wrote no new files.\nNothing failed.\nTook " in ran.stderr
    logged = invoke("run", "--local", "--log-json", str(tmp_path))
    assert logged.stdout == printed
    assert all(line.startswith("{") for line in logged.stderr.splitlines())


def test_a_run_that_returns_nothing_prints_its_summary_on_stdout(no_model: Path) -> None:
    ran = invoke("run", "--local", str(no_model))
    assert ran.stdout.startswith("Wrote ")
    assert "Took " in ran.stdout


def test_completion_imports_nothing_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PADDOCK_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    seen = imported_by("paddock ", "paddock run --", "paddock chat ", cwd=tmp_path)
    assert not seen & {*SLOW} - {"rich"}  # which is put out of reach


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(option: str) -> None:
    assert re.fullmatch(r"paddock \d+\.\d+\.\d+\S*\n", invoke(option).stdout)


def test_help_of_what_is_no_command_says_so() -> None:
    result = invoke("help", "rum")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "Error: No such command 'rum'. Did you mean 'rm', 'run', 'resume'?\n"
    )


def test_help_names_every_command_once_below_its_heading() -> None:
    there = typer.main.get_command(application())
    assert isinstance(there, typer.core.TyperGroup)
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(n for n, command in there.commands.items() if not command.hidden)
    shown = invoke("--help").stdout.partition("\n\nPipelines:\n")[2]
    assert re.findall(r"^  (\w+) ", shown, re.MULTILINE) == named
    assert "..." not in shown


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_all_commands_has_the_first_paragraph_of_each(group: str) -> None:
    summaries = {name: text for names in SECTIONS.values() for name, text in names.items()}
    here = typer.main.get_command(application(GROUPS[group][0]))
    assert isinstance(here, typer.core.TyperGroup)
    for name, command in here.commands.items():
        if not command.hidden:
            first = (command.help or "").partition("\n\n")[0]
            assert summaries[name] == " ".join(first.split())


def commands_below(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_below(command, (*names, name))
        else:
            yield " ".join((*names, name)), command


@pytest.mark.parametrize("group", GROUPS)
def test_every_argument_and_option_is_explained(group: str) -> None:
    for name, command in commands_below(typer.main.get_command(application(GROUPS[group][0]))):
        assert command.help and command.help.rstrip().endswith("."), name
        for param in command.params:
            explained = param.help and param.help.endswith(".")
            assert explained or param.hidden, f"{name}: {param.opts}"


@pytest.mark.parametrize("arguments", [("run",), ("frobnicate",), ("plan", "--frob", "x")])
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_value_that_an_option_does_not_take_is_told_with_its_option() -> None:
    result = invoke("run", "x.yaml", "--fail-on", "maybe")
    assert result.exit_code == 2
    assert (
        "Invalid value for '--fail-on': Value error, 'maybe' is not one of 'new', 'any',"
        in result.stderr
    )


def test_a_file_that_is_not_there_hides_no_fault_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("steps: []")
    (tmp_path / "b.yaml").symlink_to("nowhere")
    names = [str(tmp_path / name) for name in ("none.yaml", "a.yaml", "b.yaml")]
    result = invoke("validate", "--json", *names, "")
    assert result.exit_code == 2
    faults = json.loads(result.stdout)["faults"]
    assert [(fault["message"], fault["line"]) for fault in faults] == [
        (f"There is no file '{names[0]}'.", None),
        ("'steps' must not be empty.", 1),
        (f"'{names[2]}' is a link to a file that does not exist.", None),
        ("The name of the pipeline is empty.", None),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a"], "'-i a' is not an input.\n  Write it as `-i name=value`."),
        (["=1"], "'-i =1' is not an input.\n  Write it as `-i name=value`."),
        (["a=1", "a=2"], "Input 'a' is given twice.\n  Leave one of them out."),
    ],
)
def test_an_input_that_is_none_is_told(given: list[str], words: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_inputs(given)
    assert str(caught.value) == words


def test_a_bad_setting_ends_with_2_and_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_MAX_QUEUE", "lots")
    result = invoke("list", "--json")
    assert result.exit_code == 2
    assert result.stderr.startswith("PADDOCK_MAX_QUEUE: 'lots' is not a whole number")
    assert json.loads(result.stdout) == {"ok": False, "error": result.stderr.rstrip("\n")}


def test_the_schema_knows_every_installed_step(tmp_path: Path) -> None:
    assert "files.scan" in invoke("schema").stdout
    for _ in range(2):  # it can be written again
        assert invoke("schema", "--write", str(tmp_path)).exit_code == 0
        assert "files.scan" in (tmp_path / ".paddock/pipeline.schema.json").read_text("utf-8")


def ended(error: BaseException, *, as_json: bool = False) -> Result:
    """Run a command that raises `error`."""
    application = typer.Typer()

    def command(as_json: bool = as_json) -> int:
        raise error

    application.command()(with_exit_status(command))
    return CliRunner().invoke(application, ["--as-json"] if as_json else [])


def test_a_state_folder_that_cannot_be_written_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", "/ro/paddock")
    result = ended(OSError(errno.EROFS, "Read-only file system", "/ro/paddock"))
    remedy = "Set PADDOCK_HOME to a folder that you can write to."
    said = f"/ro/paddock: Read-only file system. {remedy}\n"
    assert (result.exit_code, result.stderr) == (1, said)


def test_a_machine_gets_its_object_whatever_happens() -> None:
    result = ended(CommandError("There is no file 'x'."), as_json=True)
    assert json.loads(result.stdout) == {"ok": False, "error": "There is no file 'x'."}


def shell(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a person does, with `paddock` on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, **environ},
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    ["paddock steps --json | head -c 1", "paddock list >&-", "paddock list 2>&- >/dev/null"],
)
def test_a_reader_that_goes_away_or_a_closed_stream_fails_nothing(command: str) -> None:
    answer = shell(command)
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("command", ["list", "list --json", "--help", "validate --help"])
def test_what_cannot_be_written_down_fails_in_a_sentence(command: str) -> None:
    answer = shell(f"paddock {command} >/dev/full")
    expected = "standard output: No space left on device.\n"
    assert (answer.returncode, answer.stderr) == (1, expected)


def test_names_that_no_letters_stand_for_are_told(tmp_path: Path, no_model: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4d"))
    odd.mkdir()
    shutil.copy(no_model, odd)
    result = invoke("plan", str(odd))
    assert result.exit_code == 2
    assert result.stderr == (
        f"'{printing.printable_line(str(odd))}' has a name that is not UTF-8.\n"
        "  Rename it, or set a locale that has its letters, such as LC_ALL=C.UTF-8.\n"
    )
    result = invoke("plan", str(no_model), "-i", "a=\udce4")
    assert result.stderr == "Input 'a' is not UTF-8.\n  Give it in that encoding.\n"


def test_a_terminal_that_lacks_letters_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = shell("paddock init 文/件", PYTHONIOENCODING="ascii")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("Made '\\u6587/\\u4ef6' with ")


def test_what_is_printed_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_out("a\x1b[2J\tb\nc\x9b\udcff")
    assert capsys.readouterr().out == "a\\x1b[2J\tb\nc\\x9b\\udcff\n"
