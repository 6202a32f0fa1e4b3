"""A new pipeline folder: `paddock init`.

Templates are folders of `paddock.examples`, so it works from a wheel, without a clone or network.
"""

from __future__ import annotations

import difflib
import os
import re
import select
import shutil
import sys
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import typer

from paddock.engine.system import distribution
from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import argument, flag, option
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.cli.installed_schema import installed_schema, write_schema
from paddock.runner.cli.pipeline_draft import (
    DOCUMENTS,
    MAILBOX,
    OFFICE,
    RESULTS,
    SAMPLES,
    Documents,
    DocumentsThere,
    DraftAnswers,
    Result,
    draft_pipeline,
    with_mailbox,
)
from paddock.runner.progress import printing
from paddock.runner.progress.report import not_taken_in_words
from paddock.steps.paths import write_refusal

_Name = TypeVar("_Name", bound=str)
PIPELINE_FILE = "pipeline.yaml"
PACKAGE_FILE = "pyproject.toml"

# Left behind by runs of a template in a clone.
_NOT_COPIED = frozenset({".paddock", "__pycache__", "models", "out", "summaries", "build", "filed"})
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]*)[^)]*\)")
_OF_EXAMPLE = frozenset({"inbox", "cassettes"})


class PipelineTemplate(Struct, frozen=True):
    name: str
    folder: Path
    description: str

    @property
    def is_package(self) -> bool:
        """Whether it is a package with steps, and no pipeline."""
        return not (self.folder / PIPELINE_FILE).exists()


def list_templates(examples: Path | None = None) -> tuple[PipelineTemplate, ...]:
    folder = examples or examples_folder()
    files = {
        file.parent: file
        for name in (PACKAGE_FILE, PIPELINE_FILE)
        for file in folder.glob(f"*/{name}")
    }
    templates = []
    for place, file in sorted(files.items()):
        text = file.read_text("utf-8")
        # The `description` line, else the first comment that is a sentence
        found = re.search(r"^description(?::| =) *(.+)$", text, re.MULTILINE)
        found = found or re.search(r"^# ([A-Z].+)$", text, re.MULTILINE)
        about = found[1].strip("\"' ") if found else ""
        templates.append(PipelineTemplate(place.name, place, about))
    return tuple(templates)


def copy_template(
    template: str, folder: Path, schema: Mapping[str, Any], *, examples: Path | None = None
) -> tuple[Path, ...]:
    known = {found.name: found for found in list_templates(examples)}
    if template not in known:
        near = difflib.get_close_matches(template, known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listed = ", ".join(f"'{name}'" for name in known)
        raise CommandError(f"There is no template '{template}'.\n  Known: {listed}.{hint}")
    chosen = known[template]
    _refuse_full(folder)
    written = [_copy_file(file, chosen.folder, folder) for file in _template_files(chosen.folder)]
    return tuple(written) if chosen.is_package else (*written, write_schema(folder, schema))


def examples_folder() -> Path:
    folder = distribution.examples_folder()
    if folder is None:
        raise CommandError("This installation has no templates: `paddock.examples` is missing.")
    return folder


def _refuse_full(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"'{folder}' is a file.\n  Name a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise CommandError(
            f"'{folder}' is not empty, so nothing was written.\n"
            "  Name a new folder, or empty this one first."
        )
    if (why := write_refusal(folder)) is not None:
        raise CommandError(f"'{folder}' cannot be made: {why}.\n  Name another folder.")


def _template_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in _NOT_COPIED or path.suffix in (".pyc", ".lance", ".egg-info"):
            continue
        if path.is_dir():
            yield from _template_files(path)
        else:
            yield path


def _copy_file(file: Path, template: Path, folder: Path) -> Path:
    target = folder / file.relative_to(template)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)  # content only: installed files may be read-only
    if file.suffix == ".md":  # a link to a page that is not copied leaves its words

        def kept(link: re.Match[str]) -> str:
            place = Path(os.path.normpath(file.parent / link[2]))
            return link[0] if place.is_relative_to(template) else link[1]

        target.write_text(_LINK.sub(kept, file.read_text("utf-8")), "utf-8")
    return target


def init(
    template: str | None = argument(
        "A name; `paddock init --list` shows them.", metavar="TEMPLATE"
    ),
    folder: str | None = argument("The folder to make.", metavar="DIR"),
    have: Documents | None = option("Draft a pipeline for these documents.", "--have"),
    want: Result | None = option("What the drafted pipeline makes of them.", "--want"),
    yes: bool = flag("Ask nothing; take the first answer.", "--yes", "-y"),
    list_: bool = flag("List the templates.", "--list"),
) -> int:
    known = list_templates()
    if list_:
        printing.print_out(_template_list(known))
        return DONE
    is_answered = bool(have or want)
    if is_answered and folder is not None:
        raise CommandError("`--have` and `--want` draft a pipeline.\n  Leave the template out.")
    # One word is the folder; one that names a template is both.
    names = () if is_answered else [known_template.name for known_template in known]
    documents: Documents | None = None
    if template is not None and (template in names or folder is not None):
        place = Path(folder or template).expanduser()
        written = copy_template(template, place, installed_schema())
    else:
        # What is not given is asked, or the first choice.
        may_ask = not yes and _has_answers()
        if not (have or want or template or yes or may_ask):
            raise CommandError(_template_list(known))
        first = DraftAnswers()
        documents = have or (
            _choice("What do you have?", DOCUMENTS) if may_ask else first.documents
        )
        result = want or (_choice("What do you want?", RESULTS) if may_ask else first.result)
        place = Path(template or f"{documents}-{result}").expanduser()
        if may_ask and template is None:
            place = _new_folder(str(place))
        answers = DraftAnswers(documents, result)
        there = DocumentsThere.of(place, answers.documents)
        written = write_draft(answers, place, installed_schema(), there)
        if there is not None and answers.documents != "table" and answers.result != "filed":
            n_all = there.n_taken + sum(there.not_taken.values())
            takes = f"It takes {there.n_taken:,} of {counted(n_all, 'file')} that are there: "
            printing.print_out(f"{takes}{', '.join(there.suffixes)}.")
            if words := not_taken_in_words(there.not_taken):
                printing.print_out(f"{words} Change `include` of `docs` to take others.")
    printing.print_out(f"Made '{place}' with {counted(len(written), 'file')}.")
    here = place / PIPELINE_FILE
    command = "paddock run" if here.exists() else "pip install -e"
    if documents == MAILBOX:
        here.write_text(with_mailbox(here.read_text("utf-8")), "utf-8")
        printing.print_out(f"Write your server and user into '{here}', and set MAIL_PASSWORD.")
        command += " --allow network,secrets"
    printing.print_out(f"Next: {command} {quote(str(here if here.exists() else place))}")
    return DONE


def _has_answers() -> bool:
    """Return whether someone types at a terminal, or answers have been piped in."""
    if sys.stdin.isatty():
        return True
    try:  # a pipe that stays empty is not waited for
        is_there, buffer = bool(select.select([sys.stdin], [], [], 0)[0]), sys.stdin.buffer
        return is_there and isinstance(buffer, BufferedReader) and bool(buffer.peek(1))
    except (OSError, ValueError):  # closed, or no file
        return False


def _new_folder(default: str) -> Path:
    while True:
        answer = typer.prompt("Which folder shall be made?", default=default, err=True).strip()
        place = Path(answer or default).expanduser()
        try:
            _refuse_full(place)
        except CommandError as error:
            printing.print_err(str(error))
        else:
            return place


def _choice(question: str, choices: Mapping[_Name, str]) -> _Name:
    names = list(choices)
    printing.print_err(question)
    for number, name in enumerate(names, 1):
        printing.print_err(f"  {number}  {name}: {choices[name]}")
    while True:
        answer = typer.prompt("Number or name", default="1", err=True).strip().lower()
        for number, name in enumerate(names, 1):
            if answer in (str(number), name):
                return name
        printing.print_err(f"'{answer}' is not in the list.")


def write_draft(
    answers: DraftAnswers,
    folder: Path,
    schema: Mapping[str, Any],
    there: DocumentsThere | None = None,
) -> tuple[Path, ...]:
    """Write a drafted pipeline for the documents there, or with one to try it on; return files."""
    pipeline = folder / PIPELINE_FILE
    documents = list[Path]()
    if answers.result == "filed":
        # The example of an office, without its documents and tests where others are there
        if answers.documents == "table":
            raise CommandError("A table has no documents to file.\n  Take another `--want`.")
        if there is None and answers.documents != MAILBOX:
            return copy_template(OFFICE, folder, schema)
        if there is not None and there.root == ".":
            raise CommandError(
                f"The documents lie in '{folder}' itself.\n"
                f"  Put them into '{folder / 'inbox'}': what is made of them lies beside it."
            )
        example = examples_folder() / OFFICE
        files = [file for file in _template_files(example) if file.parent.name not in _OF_EXAMPLE]
        if known := [file.name for file in files if (folder / file.relative_to(example)).exists()]:
            raise CommandError(f"'{folder}' has a '{known[0]}', so nothing was written.")
        written = [_copy_file(file, example, folder) for file in files]
        pipeline.write_text(pipeline.read_text("utf-8").partition("\ntests:\n")[0], "utf-8")
        return *written, write_schema(folder, schema)
    if there is None or pipeline.exists():
        _refuse_full(folder)
        if name := SAMPLES[answers.documents]:
            sample = examples_folder() / name
            documents.append(_copy_file(sample, sample.parent, folder / "inbox"))
    pipeline.parent.mkdir(parents=True, exist_ok=True)
    pipeline.write_text(draft_pipeline(answers, there), "utf-8")
    return pipeline, *documents, write_schema(folder, schema)


def _template_list(known: tuple[Any, ...]) -> str:
    width = max(len(template.name) for template in known)
    listed = "\n".join(f"  {template.name:<{width}}  {template.description}" for template in known)
    drafts = f"--have {'|'.join(DOCUMENTS)} --want {'|'.join(RESULTS)}"
    return (
        f"`paddock init TEMPLATE DIR` copies one of these templates:\n{listed}\n"
        f"`paddock init DIR {drafts}` drafts a pipeline for your documents."
    )
