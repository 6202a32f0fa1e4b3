"""Which pipelines are found, what changed, what is told."""

import shutil
from pathlib import Path

import pytest

from paddock.runner.bind.trust.consents import Consents
from paddock.runner.schedule.discovery import GONE_AFTER, PipelineChanges, PipelineFinder
from tests.runner.cli.commands.shell import invoke

STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"
HOURLY = 'on: {schedule: [{cron: "0 * * * *"}]}\n'


class Look:
    """A folder that is looked at, a second apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.finder = PipelineFinder([folder], clock=lambda: self.now)

    def __call__(self) -> PipelineChanges:
        self.now += 2.0
        return self.finder.scan_folders()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def look_twice(self) -> PipelineChanges:
        self()
        return self()


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(tmp_path)


def names(changes: PipelineChanges) -> list[str]:
    return sorted(pipeline.file.name for pipeline in changes.triggered)


def test_only_pipelines_that_something_starts_are_found(look: Look, tmp_path: Path) -> None:
    look.write("a.yaml", HOURLY + STEPS)
    look.write("deep/er/b.yml", HOURLY + STEPS)
    look.write("by-hand.yaml", STEPS)
    look.write("workflow.yaml", "on: push\njobs: {}\n")
    look.write(".hidden/c.yaml", HOURLY + STEPS)
    look.write("node_modules/d.yaml", HOURLY + STEPS)
    look.write("notes.txt", HOURLY + STEPS)
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    found = look()
    assert (names(found), found.messages) == (["a.yaml", "b.yml"], ())


def test_a_changed_file_counts_once_it_has_settled(look: Look) -> None:
    look.write("a.yaml", HOURLY + STEPS)
    look()
    look.write("a.yaml", HOURLY.replace("0 *", "30 *") + STEPS)
    assert look().added == ()
    (changed,) = look().added
    assert changed.schedules[0].cron == "30 * * * *"
    assert look().added == ()


def test_a_faulty_file_is_told_once_and_what_was_sound_stays(look: Look) -> None:
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    look.write("a.yaml", HOURLY + "steps: [{uses: files.scan, with: {ro")
    found = look.look_twice()
    assert names(found) == ["a.yaml"] and found.triggered[0].text == HOURLY + STEPS
    (message,) = found.messages
    assert message.startswith(f"{file}:2:")
    assert message.endswith("\n  It does not run. Its last valid version stays in service.")
    assert [look().messages for _ in range(10)] == [()] * 10
    look.write("a.yaml", HOURLY + "name: other\n" + STEPS)
    assert look.look_twice().triggered[0].pipeline.name == "other"


def test_a_file_whose_steps_are_not_saved_yet_is_no_end_of_the_pipeline(look: Look) -> None:
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    for half in (HOURLY, "", "# nothing\n"):
        look.write("a.yaml", half)
        assert names(look.look_twice()) == ["a.yaml"]
    assert look.look_twice().messages == ()
    look.write("a.yaml", HOURLY)
    assert look.look_twice().messages[0].startswith(f"{file}:1:1: there are no `steps` any more.")
    look.write("a.yaml", STEPS)
    assert names(look.look_twice()) == []


def test_a_file_that_is_gone_for_good_is_removed_and_one_written_again_is_not(look: Look) -> None:
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    file.unlink()
    assert names(look()) == ["a.yaml"]
    look.write("a.yaml", HOURLY + STEPS)
    assert names(look.look_twice()) == ["a.yaml"]
    file.unlink()
    assert [names(look()) for _ in range(GONE_AFTER)][-1] == []


def test_what_cannot_start_by_itself_is_a_fault(look: Look) -> None:
    look.write("a.yaml", HOURLY + "inputs: {folder: {type: dir, required: true}}\n" + STEPS)
    look.write("b.yaml", 'on: {schedule: [{cron: "0 0 31 2 *"}]}\n' + STEPS)
    look.write("c.yaml", 'on: {schedule: [{cron: "0 0 * * *", timezone: Mars/X}]}\n' + STEPS)
    look.write("e.yaml", "on: {schedule: [{cron: '@daily', inputs: {folder: /etc}}]}\n"
               "inputs: {folder: {type: dir}}\n" + STEPS)  # fmt: skip
    secret = "on: {webhook: [{path: /x, inputs: {word: '{{ payload.word }}'}}]}\n"
    look.write("d.yaml", f"{secret}inputs: {{word: {{type: str, secret: true}}}}\n{STEPS}")
    text = "\n".join(look().messages)
    assert "input 'word' is secret, and inputs of a webhook are stored in the queue." in text
    assert "input 'folder' has no value, and the pipeline starts by itself." in text
    assert "the schedule '0 0 31 2 *' never comes." in text
    assert "input 'folder' leads outside the pipeline's folder." in text
    assert "What starts by itself has only folders below its own; mount it there." in text
    assert "'timezone' must be a time zone such as Europe/Paris or UTC" in text


def test_what_only_calls_start_is_not_carried_out_either_if_it_wants_too_much(look: Look) -> None:
    steps = "steps: [{uses: run, with: {command: [ls]}}]\n"
    file = look.write("a.yaml", f"on: {{webhook: [{{path: /x}}]}}\n{steps}")
    found = look()
    assert names(found) == []
    assert f"wants to run `ls` ({shutil.which('ls')}), which needs 'run'." in found.messages[0]
    assert look.finder.faults() == {str(file): found.messages[0]} and look.finder.lacks_pipelines()
    look.write("a.yaml", f"on: {{webhook: [{{path: /x}}]}}\n{STEPS}")
    (triggered,) = look.look_twice().triggered
    assert triggered.bound is not None, "who is told of its crashes stands there"
    assert look.finder.faults() == {} and not look.finder.lacks_pipelines()


def test_a_file_no_one_may_read_is_told(look: Look, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"on: \xff\nsteps: \n")
    (message,) = look().messages
    assert message == f"{tmp_path / 'a.yaml'}: is not UTF-8 text.\n  It does not run."


def inbox(path: str = "./inbox", out: str = "out/{{ doc.relpath }}") -> str:
    return f"""\
on: {{watch: [{{path: {path}}}]}}
steps:
  - {{id: docs, uses: files.scan, with: {{root: {path}}}}}
  - for_each: doc in steps.docs.files
    do: [{{uses: files.write, with: {{path: "{out}", text: x}}}}]
"""


def test_a_file_in_a_folder_of_documents_is_never_a_pipeline_and_is_told_once(
    look: Look, tmp_path: Path
) -> None:
    look.write("notes/pipeline.yaml", inbox())
    look.write("notes/other.yaml", HOURLY + STEPS.replace("root: .", "root: docs"))
    dropped = look.write("notes/inbox/deep/evil.yaml", HOURLY + STEPS)
    look.write("notes/inbox/config.yaml", "a: 1\n")
    first = look()
    assert names(first) == ["other.yaml", "pipeline.yaml"]
    assert first.messages == (
        f"{dropped}: is ignored: it lies in '{tmp_path / 'notes/inbox'}', where documents of "
        f"{tmp_path / 'notes/pipeline.yaml'} arrive or are written.\n"
        f"  If it is a pipeline, move it into another folder.",
    )
    look.write("notes/inbox/evil.yml", HOURLY + STEPS)
    look.write("notes/out/evil.yaml", HOURLY + STEPS)
    assert [len(look().messages) for _ in range(6)] == [2, 0, 0, 0, 0, 0]
    assert names(look()) == ["other.yaml", "pipeline.yaml"]
    dropped.rename(tmp_path / "notes/moved.yaml")
    assert names(look.look_twice()) == ["moved.yaml", "other.yaml", "pipeline.yaml"]


def test_links_do_not_lead_out_of_a_folder_of_documents(look: Look, tmp_path: Path) -> None:
    look.write("real/evil.yaml", HOURLY + STEPS)
    look.write("a/pipeline.yaml", inbox("./sub/../inbox"))
    (tmp_path / "a/inbox").symlink_to(tmp_path / "real")
    look.write("a/linked.yaml", "").unlink()
    (tmp_path / "a/linked.yaml").symlink_to(tmp_path / "a/inbox/evil.yaml")
    # The watched folder itself lies outside and is refused, but the link is a document's.
    assert "evil.yaml" not in names(look()) and "linked.yaml" not in names(look())


def test_what_comes_into_a_pipelines_own_folder_later_is_a_document_of_it(look: Look) -> None:
    look.write(
        "a/own.yaml",
        inbox(".", out="out/{{ doc.relpath }}").replace(
            "path: .", 'path: ".", exclude: [/out/]', 1
        ),
    )
    look.write("a/beside.yaml", HOURLY + STEPS.replace("root: .", "root: docs"))
    assert names(look()) == ["beside.yaml", "own.yaml"]
    late = look.write("a/late.yaml", HOURLY + STEPS)
    elsewhere = look.write("b/late.yaml", HOURLY + STEPS)
    messages = look().messages
    found = look()
    assert [pipeline.file for pipeline in found.triggered if pipeline.file.name == "late.yaml"] == [
        elsewhere
    ]
    assert messages == (
        f"{late}: is ignored: it came into the folder of own.yaml, where documents of that "
        f"pipeline arrive.\n"
        f"  If it is a pipeline, move it into a folder of its own, or start `paddock up` again at "
        f"a terminal.",
    )


@pytest.mark.parametrize("is_restarted", [True, False])
@pytest.mark.parametrize("place", ["../..", "{served}/other"])
@pytest.mark.parametrize(
    "claim",
    [
        "{hourly}steps: [{{uses: files.write, with: {{path: '{place}/x.txt', text: a}}}}]\n",
        "inputs: {{d: {{type: dir, default: '{place}'}}}}\n{hourly}{steps}",
        "on: {{watch: [{{path: '{place}'}}]}}\n{steps}",
        "steps: [{{id: docs, uses: files.scan, with: {{root: '{place}'}}}}]\n",
    ],
)
def test_a_document_ends_no_pipeline_whatever_folders_it_names(
    tmp_path: Path, claim: str, place: str, is_restarted: bool
) -> None:
    consents = Consents(tmp_path / "home")
    look = Look(tmp_path / "served")
    look.folder.mkdir()
    look.finder = PipelineFinder([look.folder], {}, lambda: look.now, consents)
    look.write("notes/pipeline.yaml", HOURLY + STEPS.replace("root: .", "root: inbox"))
    look.write("other/pipeline.yaml", HOURLY + STEPS.replace("root: .", "root: docs"))
    assert len(look().triggered) == 2
    text = claim.format(
        place=place.format(served=look.folder),
        hourly=HOURLY,
        steps=STEPS.replace("root: .", "root: d"),
    )
    look.write("notes/inbox/deep/evil.yaml", text)
    if is_restarted:
        look.finder = PipelineFinder([look.folder], {}, lambda: look.now, consents)
    assert [path.file.parent.name for path in look.look_twice().triggered] == ["notes", "other"]


def test_links_in_a_folder_of_documents_are_no_pipelines(look: Look, tmp_path: Path) -> None:
    look.write("notes/pipeline.yaml", inbox())
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "evil.yaml").write_text(HOURLY + STEPS)
    (look.write("notes/inbox/a.txt", "a").parent / "evil.yaml").symlink_to(elsewhere / "evil.yaml")
    assert names(look()) == ["pipeline.yaml"]


def test_what_came_into_a_pipelines_own_folder_stays_a_document_when_up_starts_by_itself(
    tmp_path: Path,
) -> None:
    consents = Consents(tmp_path / "home")
    look = Look(tmp_path / "served")
    look.write("own.yaml", HOURLY + STEPS)

    def started(*, is_attended: bool) -> list[str]:
        clock = lambda: look.now  # noqa: E731
        look.finder = PipelineFinder([look.folder], {}, clock, consents, is_attended)
        return names(look())

    assert started(is_attended=False) == ["own.yaml"]
    look.write("late.yaml", HOURLY + STEPS)
    assert names(look.look_twice()) == ["own.yaml"]
    assert started(is_attended=False) == ["own.yaml"]
    assert started(is_attended=True) == ["late.yaml", "own.yaml"]
    assert started(is_attended=False) == ["late.yaml", "own.yaml"]


def test_hot_folders_stores_and_dir_inputs_hold_no_pipelines(look: Look) -> None:
    look.write("p.yaml", """\
inputs: {to: {type: dir, default: ./sums}}
on: {watch: [{path: ./hot, claim: move}]}
steps:
  - {id: docs, uses: files.scan, with: {root: ./hot/processing}}
  - for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: embed, with: {texts: ["{{ steps.text.text }}"], store: index.lance}}
      - {uses: files.move, with: {path: "{{ doc.path }}", mode: copy, to: kept/}}
""")  # fmt: skip
    for folder in (
        "sums",
        "hot",
        "hot/processing",
        "hot/done",
        "hot/failed",
        "index.lance",
        "kept",
    ):
        look.write(f"{folder}/evil.yaml", HOURLY + STEPS)
    assert names(look()) == ["p.yaml"]


RUNS = HOURLY + "steps: [{id: a, uses: run, with: {command: [ls]}}]\n"


class Agreed(Look):
    """A folder under `paddock up --allow run`."""

    def __init__(self, folder: Path, allow: str = "run", *, is_attended: bool = False) -> None:
        super().__init__(folder / "pipelines")
        self.folder.mkdir(exist_ok=True)
        self.consents = Consents(folder / "home")
        self.finder = PipelineFinder(
            [self.folder], {"allow": allow}, lambda: self.now, self.consents, is_attended
        )


def test_what_is_there_when_up_is_allowed_something_is_agreed_to_and_later_files_are_not(
    tmp_path: Path,
) -> None:
    look = Agreed(tmp_path)
    look.write("a.yaml", RUNS)
    assert names(look()) == ["a.yaml"]
    late = look.write("late.yaml", RUNS)
    found = look.look_twice()
    assert names(found) == ["a.yaml"]
    assert found.messages == (
        f"{late}:2:44: the pipeline wants to run `ls` ({shutil.which('ls')}), and this file "
        f"has no consent for that.\n"
        f"       2 | steps: [{{id: a, uses: run, with: {{command: [ls]}}}}]\n"
        f"         |                                            ^^^^\n"
        f"  If you trust it: `paddock allow '{late}'`.\n"
        f"  It does not run.",
    )
    # A start without a person, such as after a crash, agrees to nothing more.
    assert names(Agreed(tmp_path)()) == ["a.yaml"]
    assert names(Agreed(tmp_path, "run,network")()) == ["a.yaml", "late.yaml"]


def test_a_file_that_asks_for_something_else_keeps_its_old_form_until_a_person_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    look = Agreed(tmp_path)
    file = look.write("a.yaml", RUNS)
    look()
    look.write("a.yaml", "description: Another.\n" + RUNS)
    assert look.look_twice().triggered[0].pipeline.description == "Another."
    changed = RUNS.replace("[ls]", "[rm]")
    look.write("a.yaml", changed)
    found = look.look_twice()
    assert found.triggered[0].text != changed
    assert found.messages[0].endswith(
        "\n  It does not run. Its last valid version stays in service."
    )
    done = invoke("allow", str(file))
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{file} may, if `run` is allowed:\n  run `rm`")
    for _ in range(6):
        look()
    assert look().triggered[0].text == changed
