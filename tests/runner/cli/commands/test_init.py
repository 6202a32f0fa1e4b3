"""A new pipeline folder from a template that comes with the package."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from paddock.runner.api import plan, validate
from paddock.runner.cli.commands.init import copy_template, list_templates, write_draft
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.cli.pipeline_draft import (
    DOCUMENTS,
    RESULTS,
    SAMPLES,
    Documents,
    DraftAnswers,
    Result,
)
from tests.fakes.dovecot import PASSWORD, USER, dovecot, is_here, mail
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import paddock_here as paddock
from tests.runner.cli.commands.terminal import terminal
from tests.runner.world import ReviewedWorld, carried_out

SCHEMA = {"title": "A pipeline"}


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Two templates, one with what its own runs left behind, and folders that are none."""
    folder = tmp_path / "examples"
    for name, text in {
        "minimal/pipeline.yaml": "# Summarise a folder.\nsteps: []\n",
        "digest/pipeline.yaml": "name: digest\ndescription: Every document, then a digest.\n",
        "digest/inbox/sub/a.md": "A",
        "digest/prompts/map.md": "Say it shortly.",
        "digest/.paddock/ledger.sqlite": "x",
        "digest/summaries/a.md.md": "x",
        "digest/__pycache__/a.pyc": "x",
        "package/pyproject.toml": '[project]\ndescription = "A step of my own"\n',
        "package/build/left.py": "x",
        "models/model.gguf": "x",
        "__init__.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_templates_are_the_folders_with_a_pipeline(examples: Path) -> None:
    assert [(template.name, template.description) for template in list_templates(examples)] == [
        ("digest", "Every document, then a digest."),
        ("minimal", "Summarise a folder."),
        ("package", "A step of my own"),
    ]


def test_documents_come_along_but_not_what_runs_left_behind(examples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "place"
    written = copy_template("digest", folder, SCHEMA, examples=examples)
    assert sorted(str(file.relative_to(folder)) for file in written) == [
        ".paddock/pipeline.schema.json",
        "inbox/sub/a.md",
        "pipeline.yaml",
        "prompts/map.md",
    ]
    there = {path for path in folder.rglob("*") if path.is_file()}
    assert set(written) == there - {folder / ".paddock/.gitignore"}


def test_a_folder_with_something_in_it_is_left_alone(examples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CommandError) as caught:
        copy_template("digest", folder, SCHEMA, examples=examples)
    assert str(caught.value) == (
        f"'{folder}' is not empty, so nothing was written.\n"
        "  Name a new folder, or empty this one first."
    )
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_what_every_template_makes_is_valid_and_complete(tmp_path: Path) -> None:
    for template in list_templates():
        folder = tmp_path / template.name
        copy_template(template.name, folder, SCHEMA)
        if not template.is_package:
            assert validate(folder / "pipeline.yaml").faults == (), template.name
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        kept = subprocess.run(
            ["git", "ls-files", "."], cwd=template.folder, capture_output=True, text=True
        )
        assert {line for line in kept.stdout.splitlines() if '"' not in line} <= there


def test_no_link_of_a_copied_page_leads_nowhere(tmp_path: Path) -> None:
    for template in list_templates():
        folder = tmp_path / template.name
        copy_template(template.name, folder, SCHEMA)
        for page in folder.rglob("*.md"):
            links = re.findall(r"\]\((?!\w+:|#)([^)#]+)", page.read_text())
            assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_every_template_says_in_its_readme_how_it_is_used() -> None:
    for template in list_templates():
        lines = (template.folder / "README.md").read_text("utf-8").splitlines()
        assert lines[0].startswith("# "), template.name
        assert 5 <= len(lines) <= 50, template.name
        assert any("paddock " in line for line in lines), template.name
        commands = [line for line in lines if line.startswith(("    ", "$ "))]
        assert not [line for line in commands if "examples/" in line], "there are none in a copy"
        assert 10 <= len(template.description) <= 110, template.name


@pytest.mark.parametrize("result", [result for result in RESULTS if result != "filed"])
@pytest.mark.parametrize("documents", [name for name in DOCUMENTS if SAMPLES[name]])
def test_every_draft_is_valid_and_finds_its_sample(
    documents: Documents, result: Result, tmp_path: Path
) -> None:
    written = write_draft(DraftAnswers(documents, result), tmp_path / "new", SCHEMA)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "new/pipeline.yaml",
        f"new/inbox/{Path(SAMPLES[documents]).name}",
        "new/.paddock/pipeline.schema.json",
    ]
    assert validate(written[0]).faults == ()
    assert {item.state for item in plan(written[0]).items if item.step == "each"} == {"new"}


def test_three_questions_become_a_pipeline(tmp_path: Path) -> None:
    with terminal("init", environ={}, cwd=tmp_path) as screen:
        screen.wait_for("What do you have?")
        screen.type("post\n")
        screen.wait_for("'post' is not in the list.")
        screen.type("mail\n")
        screen.wait_for("What do you want?")
        screen.type("2\n")
        screen.wait_for("Which folder shall be made?")
        screen.type("\n")
        screen.wait_for("Next: paddock run mail-labels/pipeline.yaml")
        assert screen.ended() == 0
    assert (tmp_path / "mail-labels/inbox/piano.eml").exists()


def test_the_mail_of_an_office_is_an_answer_and_takes_the_documents_that_are_there(
    tmp_path: Path,
) -> None:
    made = paddock("init", "new", "--have", "office", "--want", "filed", cwd=tmp_path)
    assert (made.status, (tmp_path / "new/inbox/hansen-77.pdf").exists()) == (0, True)
    assert validate(tmp_path / "new/pipeline.yaml").faults == ()

    (tmp_path / "mine/inbox").mkdir(parents=True)
    (tmp_path / "mine/inbox/letter.txt").write_text("Dear Ann")
    paddock("init", "mine", "--have", "office", "--want", "filed", cwd=tmp_path)
    there = {path.relative_to(tmp_path / "mine").as_posix() for path in tmp_path.rglob("mine/*/*")}
    assert {"inbox/letter.txt", "prompts/mail.md", "templates/letters.md.j2"} <= there
    assert not {"inbox/hansen-77.pdf", "tests/cassettes"} & there
    pipeline = tmp_path / "mine/pipeline.yaml"
    assert validate(pipeline).faults == () and "tests:" not in pipeline.read_text()


@pytest.mark.parametrize("result", RESULTS)
def test_a_mailbox_is_an_answer(tmp_path: Path, result: Result) -> None:
    made = paddock("init", "new", "--have", "mailbox", "--want", result, cwd=tmp_path)
    assert "Next: paddock run --allow network,secrets new/pipeline.yaml" in made.out
    assert validate(tmp_path / "new/pipeline.yaml").faults == ()
    assert not (tmp_path / "new/inbox").exists()


@pytest.mark.skipif(not is_here(), reason="dovecot is not here (dovecot-imapd)")
def test_an_office_has_a_mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paddock("init", "new", "--have", "mailbox", "--want", "filed", cwd=tmp_path)
    text = (tmp_path / "new/pipeline.yaml").read_text("utf-8")
    monkeypatch.setenv("MAIL_PASSWORD", PASSWORD)
    with dovecot() as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        server.put(mail(1))
        account = f"host: 127.0.0.1, port: {server.port}, user: {USER}"
        known = text.replace("host: imap.example.org, user: office@example.org", account)
        desk = ReviewedWorld(tmp_path / "new", known)
        answer = dict.fromkeys(("sender", "number", "total", "currency", "due"), None)
        pool = FakePool(answer=lambda _: json.dumps({"kind": "letter", **answer}))
        carried_out(desk, pool=pool)
        desk.decide_all("accept")
        report = carried_out(desk, pool=pool)
        assert (report.status, server.search("KEYWORD paddock")) == ("completed", 1)
    (filed,) = (tmp_path / "new/filed/letter").iterdir()
    assert b"Subject: Bill 1" in filed.read_bytes()


def test_what_cannot_be_filed_or_would_be_written_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose/letter.txt").write_text("Dear Ann")
    (tmp_path / "mine/inbox").mkdir(parents=True)
    (tmp_path / "mine/inbox/letter.txt").write_text("Dear Ann")
    (tmp_path / "mine/suppliers.csv").write_text("supplier\n")
    for folder, documents, told in (
        ("loose", "office", "The documents lie in 'loose' itself.\n  Put them into 'loose/inbox'"),
        ("mine", "letters", "'mine' has a 'suppliers.csv', so nothing was written."),
        ("new", "table", "A table has no documents to file."),
    ):
        refused = paddock("init", folder, "--have", documents, "--want", "filed", cwd=tmp_path)
        assert (refused.status, told in refused.err) == (2, True), refused.err
    assert not [*tmp_path.rglob("pipeline.yaml")]


def test_a_draft_asks_once_for_each_sender(tmp_path: Path) -> None:
    write_draft(DraftAnswers("invoices", "fields"), tmp_path, SCHEMA)
    desk = ReviewedWorld(tmp_path, (tmp_path / "pipeline.yaml").read_text("utf-8"))
    (tmp_path / "inbox/paint.pdf").unlink()
    written = "Quay Paints\n\nNumber: {}\nTotal: {} EUR\nPay by: {} June 2026\n"
    true = {"sender": "Quay Paints", "number": "A-1", "total": 10.5, "pay_by": "2026-06-04"}
    guess = json.dumps({**true, "sender": "Nobody", "number": "0"})
    for name, *values in (("a", "A-1", "10.50", 4), ("b", "A-2", "90.25", 11)):
        desk.write(f"inbox/{name}.txt", written.format(*values))
        report = desk.run(pool=FakePool(answer=lambda _: guess))
        if name == "a":
            desk.decide("a.txt", "edit", true)
    assert (report.calls, [*desk.waiting()]) == (0, [])
    assert "b.txt,Quay Paints,A-2,90.25,2026-06-11,false" in desk.output("fields.csv")
