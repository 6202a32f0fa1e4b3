"""What a machine sees of a shared run: each thing that differs is named."""

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.core.machines import machine_view
from paddock.runner.core.machines.machine_view import MachineView, OtherView, as_json
from paddock.runner.core.machines.work_claims import SharedPlace, open_claims
from paddock.runner.ledger.entries import ViewAtWork
from paddock.runner.ledger.sharing.run_locks import TurnWait, run_lock_name
from paddock.runner.settings import UnattendedSettings

FILES = {
    "pipeline.yaml": """\
name: letters  # of 2026
inputs:
  tone: {type: str, default: plain}
  place: {type: dir, default: inbox}
secrets:
  key: {file: key.txt}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.place }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: clean, uses: "clean.py:clean", with: {path: "{{ doc.path }}"}}
      - id: sum
        uses: chat
        with: {prompt: {file: prompts/sum.md}}
        reply: {schema: {file: reply.json}}
      - {id: part, uses: pipeline, with: {file: parts/part.yaml}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
""",
    "prompts/sum.md": "Sum up.",
    "reply.json": '{"type": "object", "properties": {"sum": {"type": "string"}}}',
    "clean.py": "from words import WORDS\n\ndef clean(path: str) -> str:\n    return path\n",
    "words.py": "WORDS = ()\n",
    "parts/part.yaml": "name: part\nsteps:\n  - {id: p, uses: prompt, with: {template: Hello}}\n",
    "key.txt": "hush",
    "inbox/a.txt": "A letter.",
}


def write(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def view(folder: Path, inputs: dict[str, Any] | None = None, model: str = "m") -> MachineView:
    plan, models = read_plan(folder / "pipeline.yaml"), {"chat": model}
    return MachineView.of(bind(plan, inputs or {}, cwd=folder, default_models=models))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["pipeline.yaml", "prompts/sum.md", "reply.json", "clean.py", "words.py",
             "parts/part.yaml"],
)  # fmt: skip
def test_each_file_that_a_pipeline_reads_is_named_where_it_is_another(
    tmp_path: Path, name: str
) -> None:
    before = view(write(tmp_path))
    text = FILES[name].replace("plain", "grand").replace("Sum", "Draw").replace('"sum"', '"total"')
    text = text.replace("()", "('a',)").replace("return path", "return '' + path")
    (tmp_path / name).write_text(text.replace("Hello", "Hi"))
    was = before.digests[f"'{name}'"]
    assert f"'{name}' is {was} there and " in view(tmp_path).differences(before.digests)


def test_comments_documents_and_secrets_are_no_difference(tmp_path: Path) -> None:
    before = view(write(tmp_path))
    (tmp_path / "pipeline.yaml").write_text(FILES["pipeline.yaml"].replace("2026", "2027"))
    (tmp_path / "inbox/a.txt").write_text("Another letter.")
    (tmp_path / "key.txt").write_text("mine")
    assert view(tmp_path).differences(before.digests) == ""


def test_inputs_models_and_versions_that_differ_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = view(write(tmp_path)).digests
    assert view(tmp_path, {"tone": "grand"}).differences(before).startswith("input 'tone' is ")
    assert view(tmp_path, {"place": tmp_path}).differences(before).startswith("input 'place' is ")
    words = "model of 'sum' is m there and n here"
    assert view(tmp_path, model="n").differences(before) == words
    assert view(tmp_path).differences({}) == ("its Paddock is older, and does not say what it sees")
    (tmp_path / "words.py").unlink()
    assert view(tmp_path).differences(before).endswith(" there and missing here")
    write(tmp_path)
    monkeypatch.setattr(machine_view, "own_version", lambda: "0.0.9")
    assert "Paddock's version is " in view(tmp_path).differences(before)
    assert view(tmp_path).differences(before).endswith(" there and 0.0.9 here")


def test_a_folder_is_the_same_under_another_path_and_another_one_as_a_copy(tmp_path: Path) -> None:
    here = view(write(tmp_path / "here"))
    (tmp_path / "mounted elsewhere").symlink_to(tmp_path / "here")
    seen = as_json(here, here.write_nonces("n"))
    time.sleep(0.1)
    shutil.copytree(tmp_path / "here", tmp_path / "copy")  # the nonce, too
    assert set(seen["folders"]) == {".", "inbox", "out"}
    view(tmp_path / "mounted elsewhere").refuse_other(seen, "run 'owl'")
    with pytest.raises(OtherView) as caught:
        view(tmp_path / "copy").refuse_other(seen, "run 'owl'")
    assert str(caught.value) == (
        f"the folder '.' is another one on this machine than for run 'owl', or nothing is mounted "
        f"there. Mount the same at {tmp_path / 'copy'}, and run again; what is done stays done."
    )
    (tmp_path / "here/out").mkdir()  # by another machine, after ours has looked
    view(tmp_path / "here").refuse_other(seen, "run 'owl'")
    here.remove_nonces("n")
    assert sorted(path.name for path in (tmp_path / "here").rglob(".*")) == []


def test_machines_join_one_run_wherever_they_mounted_the_folder(tmp_path: Path) -> None:
    def lock(folder: Path, **inputs: str) -> str:
        bound = bind(read_plan(write(folder) / "pipeline.yaml"), inputs, cwd=folder,
                     default_models={"chat": "m"})  # fmt: skip
        return run_lock_name(bound.file.name, bound.folder_inputs, bound.roots.base)

    here, mounted = tmp_path / "here", tmp_path / "mounted"
    assert lock(here) == lock(mounted)
    (tmp_path / "other").mkdir()
    assert lock(here, place=str(tmp_path / "other")) == lock(mounted, place="../other")
    assert lock(here, place="parts") != lock(mounted)


@pytest.mark.parametrize("name", ["inbox", "out"])
def test_a_folder_below_that_is_another_one_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / "out").mkdir()
    here = view(tmp_path)
    seen = as_json(here, here.write_nonces("n"))
    (tmp_path / name).rename(tmp_path / "aside")
    (tmp_path / name).mkdir()
    with pytest.raises(OtherView, match=f"the folder '{name}' is another one on this machine"):
        view(tmp_path).refuse_other(seen, "run 'owl'")


def _refused(*_: object) -> None:
    raise PermissionError(30, "Read-only file system")


def test_a_folder_that_cannot_be_written_is_known_by_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "a.txt").write_text("A letter.")
    monkeypatch.setattr(Path, "touch", _refused)
    own = MachineView(tmp_path, {"a": "1"}, (letters,))
    seen = as_json(own, own.write_nonces("n"))
    assert [name for name, *_ in seen["folders"]["letters"]] == ["a.txt"]
    own.refuse_other(seen, "run 'owl'")
    (letters / "a.txt").rename(letters / "b.txt")
    with pytest.raises(OtherView, match="the folder 'letters' is another one"):
        own.refuse_other(seen, "run 'owl'")


async def test_folders_on_a_share_that_hangs_block_no_heartbeat_and_no_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lstat_in_a_thread(_: Path) -> tuple[int, float]:
        assert threading.current_thread() is not threading.main_thread()
        return 2, 2.0

    monkeypatch.setattr(machine_view, "_file_identity", lstat_in_a_thread)
    own = view(write(tmp_path))
    theirs = as_json(own, {"inbox": (("a.txt", 1, 1.0),)})
    at_work = ViewAtWork("job", "owl", "other", json.dumps(theirs))
    claims = SimpleNamespace(holder="h", join=lambda *a, **k: at_work)
    ledger = cast(Any, SimpleNamespace(claims=lambda *a: claims))
    place = SharedPlace("folders", "name", "job", own)
    wait = TurnWait(1.0, lambda: False, print)
    with pytest.raises(OtherView, match="the folder 'inbox' is another one"):
        async with open_claims(ledger, place, "run", UnattendedSettings(), wait):
            pass
