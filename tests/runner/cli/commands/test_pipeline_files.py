"""Which pipeline a command means that is given a file, a folder or nothing."""

from pathlib import Path

import pytest

from paddock.runner.cli.arguments import pipeline_file
from paddock.runner.cli.exit_status import CommandError
from tests.runner.cli.commands.shell import invoke

PIPELINE = (
    "steps:\n"
    "  - {id: docs, uses: files.scan, with: {root: ./inbox}}\n"
    "tests:\n"
    "  - {name: nothing, expect: [{check: 'true'}]}\n"
)
COMMANDS = ("run", "plan", "validate", "graph", "test")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    folder = tmp_path / "here"
    (folder / "inbox").mkdir(parents=True)
    (folder / "inbox" / "a.txt").write_text("A letter.")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ["pipeline.yaml", "news.yaml", "NEWS.YML"])
@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_file_the_pipeline_of_the_current_folder_is_meant(
    command: str, name: str, here: Path
) -> None:
    (here / name).write_text(PIPELINE)
    (here / "compose.yaml").write_text("services: {}\n")
    result = invoke(command)
    assert result.exit_code == 0, result.output


# What lies in the current folder, and what a command is told that is given no file
TOLD: dict[str, tuple[dict[str, str], str]] = {
    "several pipelines": (
        {"b news.yaml": PIPELINE, "c.yml": PIPELINE},
        "The current folder has 2 pipelines and no pipeline.yaml: 'b news.yaml', 'c.yml'.\n"
        "  Name one of them: `paddock COMMAND 'b news.yaml'`.\n",
    ),
    "no pipeline": (
        {"compose.yaml": "services:\n  steps: {}\n", ".hidden.yaml": PIPELINE},
        "The current folder has no pipeline. It has 'compose.yaml', without `steps`.\n"
        "  Name one: `paddock COMMAND FILE`. `paddock init minimal DIR` makes one.\n",
    ),
    "folders with pipelines": (
        {"bills/pipeline.yaml": PIPELINE, "tidy/pipeline.yaml": PIPELINE},
        "The current folder has no pipeline; of the folders in it these have one: 'bills', 'tidy'."
        "\n  Name one of them: `paddock COMMAND bills`.\n",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", TOLD)
def test_where_no_pipeline_is_meant_it_is_told_what_to_type(
    here: Path, case: str, command: str
) -> None:
    files, words = TOLD[case]
    for name, text in files.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(text)
    result = invoke(command)
    assert result.exit_code == 2
    assert result.stderr.startswith(words.replace("COMMAND", command))


def test_a_prompt_of_github_models_is_told_the_form_to_write(here: Path) -> None:
    (here / "sort.prompt.yml").write_text("messages: []\n")
    with pytest.raises(CommandError) as caught:
        pipeline_file("sort.prompt.yml", "test")
    assert str(caught.value).startswith(
        "'sort.prompt.yml' is a prompt in the form of GitHub Models, and no pipeline.\n"
        "  Write its messages in 'sort.messages.yaml', as a list of `{role: user, content: …}`"
    )


def test_a_mistyped_file_is_told_with_the_one_that_is_near(here: Path) -> None:
    (here / "pipeline.yaml").write_text("")
    with pytest.raises(CommandError) as caught:
        pipeline_file(str(here / "pipelin.yaml"), "run")
    assert str(caught.value) == (
        f"There is no file '{here / 'pipelin.yaml'}'.\n  Did you mean '{here / 'pipeline.yaml'}'?"
    )
