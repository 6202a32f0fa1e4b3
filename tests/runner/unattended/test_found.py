"""Which pipelines are found, what changed, what is told."""

from __future__ import annotations

import shutil
from pathlib import Path

from paddock.runner.unattended.found import GONE_AFTER, Changes, Finder

STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"
HOURLY = 'on: {schedule: [{cron: "0 * * * *"}]}\n'


class Look:
    """A folder that is looked at, a second apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.finder = Finder([folder], clock=lambda: self.now)

    def __call__(self) -> Changes:
        self.now += 2.0
        return self.finder.look()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def settled(self) -> Changes:
        self()
        return self()


def names(changes: Changes) -> list[str]:
    return sorted(one.file.name for one in changes.standing)


def test_only_pipelines_that_something_starts_are_found(tmp_path: Path) -> None:
    look = Look(tmp_path)
    look.write("a.yaml", HOURLY + STEPS)
    look.write("deep/er/b.yml", HOURLY + STEPS)
    look.write("by-hand.yaml", STEPS)
    look.write("workflow.yaml", "on: push\njobs: {}\n")
    look.write(".hidden/c.yaml", HOURLY + STEPS)
    look.write("node_modules/d.yaml", HOURLY + STEPS)
    look.write("notes.txt", HOURLY + STEPS)
    (tmp_path / "deep/loop").symlink_to(tmp_path)
    found = look()
    assert (names(found), found.told) == (["a.yaml", "b.yml"], ())


def test_a_changed_file_counts_once_it_has_settled(tmp_path: Path) -> None:
    look = Look(tmp_path)
    look.write("a.yaml", HOURLY + STEPS)
    look()
    look.write("a.yaml", HOURLY.replace("0 *", "30 *") + STEPS)
    assert look().added == ()
    (changed,) = look().added
    assert changed.schedules[0].cron == "30 * * * *"
    assert look().added == ()


def test_a_faulty_file_is_told_once_and_what_was_sound_stays(tmp_path: Path) -> None:
    look = Look(tmp_path)
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    look.write("a.yaml", HOURLY + "steps: [{uses: files.scan, with: {ro")
    found = look.settled()
    assert names(found) == ["a.yaml"] and found.standing[0].text == HOURLY + STEPS
    (told,) = found.told
    assert told.startswith(f"{file}:2:")
    assert told.endswith("\n  It is not carried out. What it said before goes on.")
    assert [look().told for _ in range(10)] == [()] * 10
    look.write("a.yaml", HOURLY + "name: other\n" + STEPS)
    assert look.settled().standing[0].pipeline.name == "other"


def test_a_file_whose_steps_are_not_saved_yet_is_no_end_of_the_pipeline(tmp_path: Path) -> None:
    look = Look(tmp_path)
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    for half in (HOURLY, "", "# nothing\n"):
        look.write("a.yaml", half)
        found = look.settled()
        assert names(found) == ["a.yaml"] and found.removed == ()
    assert look.settled().told == ()
    look.write("a.yaml", HOURLY)
    assert look.settled().told[0].startswith(f"{file}:1:1: there are no `steps` any more.")
    look.write("a.yaml", STEPS)
    assert [one.file for one in look.settled().removed] == [file]


def test_what_a_faulty_file_lacked_may_come_later(tmp_path: Path) -> None:
    look = Look(tmp_path)
    prompt = "steps: [{uses: prompt, with: {template: {file: p.md}}}]\n"
    look.write("a.yaml", HOURLY + prompt)
    assert names(look()) == []
    look.write("p.md", "Hello.")
    found = [names(look()) for _ in range(8)]
    assert found[-1] == ["a.yaml"]


def test_a_file_that_is_gone_for_good_is_removed_and_one_written_anew_is_not(
    tmp_path: Path,
) -> None:
    look = Look(tmp_path)
    file = look.write("a.yaml", HOURLY + STEPS)
    look()
    file.unlink()
    assert look().removed == ()
    look.write("a.yaml", HOURLY + STEPS)
    assert names(look.settled()) == ["a.yaml"]
    file.unlink()
    removed = [one.file for _ in range(GONE_AFTER) for one in look().removed]
    assert removed == [file]


def test_a_folder_that_is_away_takes_nothing_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    look = Look(folder)
    look.write("a.yaml", HOURLY + STEPS)
    look()
    folder.rename(tmp_path / "away")
    told = [look().told for _ in range(4)]
    words = f"{folder}: this folder cannot be read. What stood in it is kept until it is back."
    assert told == [(words,), (), (), ()]
    assert names(look()) == ["a.yaml"]
    (tmp_path / "away").rename(folder)
    assert names(look.settled()) == ["a.yaml"]
    shutil.rmtree(folder)
    folder.mkdir()
    assert [names(look()) for _ in range(GONE_AFTER)][-1] == []


def test_what_cannot_start_by_itself_is_a_fault(tmp_path: Path) -> None:
    look = Look(tmp_path)
    look.write("a.yaml", HOURLY + "inputs: {folder: {type: dir, required: true}}\n" + STEPS)
    look.write("b.yaml", 'on: {schedule: [{cron: "0 0 31 2 *"}]}\n' + STEPS)
    look.write("c.yaml", 'on: {schedule: [{cron: "0 0 * * *", timezone: Mars/X}]}\n' + STEPS)
    secret = "on: {webhook: [{path: /x, inputs: {word: '{{ payload.word }}'}}]}\n"
    look.write("d.yaml", f"{secret}inputs: {{word: {{type: str, secret: true}}}}\n{STEPS}")
    told = "\n".join(look().told)
    assert "input 'word' is secret, and what a webhook gives is stored in the queue." in told
    assert "input 'folder' has no value, and the pipeline is to start by itself." in told
    assert "the schedule '0 0 31 2 *' never comes." in told
    assert "'timezone' must be a time zone such as Europe/Paris or UTC" in told


def test_what_only_calls_start_is_not_carried_out_either_if_it_wants_too_much(
    tmp_path: Path,
) -> None:
    look = Look(tmp_path)
    steps = "steps: [{uses: run, with: {command: [ls]}}]\n"
    file = look.write("a.yaml", f"on: {{webhook: [{{path: /x}}]}}\n{steps}")
    found = look()
    assert names(found) == []
    assert f"wants to run `ls` ({shutil.which('ls')}), which needs 'run'." in found.told[0]
    assert look.finder.faults() == {str(file): found.told[0]}
    look.write("a.yaml", f"on: {{webhook: [{{path: /x}}]}}\n{STEPS}")
    (standing,) = look.settled().standing
    assert standing.bound is not None, "who is told of its crashes stands there"
    assert look.finder.faults() == {}


def test_a_file_nobody_may_read_is_told(tmp_path: Path) -> None:
    look = Look(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"on: \xff\nsteps: \n")
    (told,) = look().told
    assert told == f"{tmp_path / 'a.yaml'}: is not UTF-8 text.\n  It is not carried out."
