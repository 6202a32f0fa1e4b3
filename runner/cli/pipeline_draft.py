"""A first pipeline from three answers: documents, task, folder.

A draft uses the models that come with Paddock, and only for what these do well: whole sentences of
a document, a label from a list, short fields with evidence. Comments say what to change.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from jinja2 import Environment, StrictUndefined

from paddock.engine.system.records import Struct
from paddock.steps.files.folder_walk import FolderWalk
from paddock.steps.files.globs import Globs
from paddock.steps.readers.document_kinds import is_readable_suffix

Documents = Literal["letters", "invoices", "mail", "mailbox", "office", "table"]
Result = Literal["summaries", "labels", "fields", "filed"]

DOCUMENTS: dict[Documents, str] = {
    "letters": "letters, notes, reports: text, Markdown, HTML, PDF, Word, scans",
    "invoices": "invoices and receipts: PDF, Word, Excel, mail, text, scans",
    "mail": "mail: files that end in .eml or .msg",
    "mailbox": "a folder of an IMAP account: its mails with what is attached",
    "office": "what an office gets, in one folder: letters, invoices, mails, scans",
    "table": "a table with a text in each row: CSV, TSV, JSON lines",
}
RESULTS: dict[Result, str] = {
    "summaries": "a short text of each, and one page with all of them",
    "labels": "a label for each, chosen from a list",
    "fields": "fields of each, such as a number or a date; a person decides once for each sender",
    "filed": "filed by kind; invoices in a workbook, with sums; yesterday's letters each morning",
}
MAILBOX: Documents = "mailbox"
OFFICE = "office"
"""The example that is copied for documents that are to be filed."""
SAMPLES: dict[Documents, str] = {
    "letters": "minimal/inbox/letter.txt",
    "invoices": "invoices/inbox/paint.pdf",
    "mail": "invoices/inbox/piano.eml",
    "mailbox": "",  # its documents come from the server
    "office": "office/inbox/hansen-77.pdf",
    "table": "folder-digest/inbox/notes/visitor-book.csv",
}
"""A document of each kind from the examples, copied so that a draft runs at once."""

_SCANS = ("png", "jpg", "jpeg", "tif", "tiff")
_SUFFIXES: dict[Documents, tuple[str, ...]] = {
    "letters": ("txt", "md", "html", "pdf", "docx", "odt", "rtf", "doc", *_SCANS),
    "invoices": ("pdf", "docx", "xlsx", "odt", "ods", "eml", "msg", "txt", *_SCANS),
    "mail": ("eml", "msg"),
    "office": ("txt", "md", "pdf", "docx", "xlsx", "odt", "eml", "msg", *_SCANS),
    "table": ("csv", "tsv", "jsonl"),
}
_LABELS: dict[Documents, str] = {
    "letters": "letter, report, minutes, advertisement, other",
    "invoices": "invoice, reminder, receipt, offer, other",
    "mail": "question, order, complaint, newsletter, other",
    "office": "invoice, letter, minutes, offer, other",
    "table": "praise, complaint, question, other",
}
_FIELDS: dict[Documents, str] = {
    "letters": "sender: str, written_on: date",
    "invoices": "sender: str, number: str, total: float, pay_by: date",
    "mail": "sender: str, subject: str",
    "office": "sender: str, subject: str",
    "table": "name: str, place: str",
}

# `<<` and `<%` in it are ours, so that `{{` stays the pipeline's. Resolved, because an editable
# install is a tree of links that lacks the data files.
_TEMPLATE = Path(__file__).resolve().parent / "templates" / "draft.yaml.j2"


def with_mailbox(pipeline: str) -> str:
    """Return a pipeline over a folder as one that copies a mailbox there first."""
    root = 'root: "{{ inputs.folder }}"'
    account = "host: imap.example.org, user: office@example.org, flag: paddock"
    mailbox = f'mailbox: {{{account}, password: "{{{{ secrets.mail }}}}"}}'
    text = pipeline.replace(root, f"{root}, {mailbox}", 1)
    return text.replace("\ninputs:", "\nsecrets: {mail: {env: MAIL_PASSWORD}}\ninputs:", 1)


class DraftAnswers(Struct, frozen=True):
    documents: Documents = get_args(Documents)[0]
    result: Result = get_args(Result)[0]


class DocumentsThere(Struct, frozen=True):
    """Documents that are in a folder before its pipeline is drafted."""

    root: str
    first: str
    """Relative path of the first of their kind."""
    suffixes: tuple[str, ...]
    """Those that can be read, as they are spelled; `include` of the draft has all of them."""
    n_taken: int
    not_taken: Mapping[str, int]
    """The other files by suffix."""

    @classmethod
    def of(cls, folder: Path, documents: Documents) -> DocumentsThere | None:
        """Return the documents of a folder, or of its `inbox`; None: it has none of this kind."""
        root = folder / "inbox" if (folder / "inbox").is_dir() else folder
        if not root.is_dir():
            return None
        walk = FolderWalk(
            root.resolve(), Globs.of(["**/*"]), Globs.of([]), frozenset(), sys.maxsize, ()
        )
        names = [f.relpath for f in walk.files(None)]
        sums = Counter(PurePosixPath(name).suffix.removeprefix(".") for name in names)
        known = _SUFFIXES["mail" if documents == MAILBOX else documents]
        of_kind = [n for n in names if n.lower().endswith(tuple(f".{suffix}" for suffix in known))]
        if not of_kind:
            return None
        taken = sorted(suffix for suffix in sums if suffix and is_readable_suffix(f".{suffix}"))
        others = {suffix: n for suffix, n in sorted(sums.items()) if suffix not in taken}
        place = "./inbox" if root != folder else "."
        return cls(place, of_kind[0], tuple(taken), sum(sums[s] for s in taken), others)


def draft_pipeline(answers: DraftAnswers, there: DocumentsThere | None = None) -> str:
    """Return the YAML of a pipeline that runs as it is, over the documents that are there.

    >>> draft_pipeline(DraftAnswers("mail", "labels")).splitlines()[1]
    'name: mail-labels'
    """
    environment = Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    documents, result = answers.documents, answers.result
    kind: Documents = "mail" if documents == MAILBOX else documents
    names = [field.partition(":")[0].strip() for field in _FIELDS[kind].split(",")]
    is_table = documents == "table"
    suffixes = there.suffixes if there is not None else _SUFFIXES[kind]
    pattern = f"{{{','.join(suffixes)}}}" if len(suffixes) > 1 else suffixes[0]
    return environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        name=f"{documents}-{result}",
        documents=documents,
        description=f"{RESULTS[result][0].upper()}{RESULTS[result][1:]}.",
        result=result,
        is_table=is_table,
        item="row: doc.values() | first" if is_table else "file: doc.relpath",
        include=f"**/*.{pattern}",
        root="./inbox" if there is None else there.root,
        sample=SAMPLES[documents].rpartition("/")[2] if there is None else there.first,
        labels=_LABELS[kind],
        fields=_FIELDS[kind],
        names=", ".join(names),
        returned=", ".join(f"{name}: steps.found.output.{name}" for name in names),
    )
