"""A first pipeline from three answers: which documents, what to make of them, where.

A draft uses the models that come with Paddock, and only for what these do well: whole sentences of
a document, a label from a list, short fields with evidence. Comments say what to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from jinja2 import Environment, StrictUndefined

Documents = Literal["letters", "invoices", "mail", "table"]
Result = Literal["summaries", "labels", "fields"]

DOCUMENTS: dict[Documents, str] = {
    "letters": "letters, notes, reports: text, Markdown, HTML, PDF, Word",
    "invoices": "invoices and receipts: PDF, Word, mail, text",
    "mail": "mail: files that end in .eml",
    "table": "a table with a text in each row: CSV, TSV, JSON lines",
}
RESULTS: dict[Result, str] = {
    "summaries": "a short text of each, and one page with all of them",
    "labels": "a label for each, chosen from a list",
    "fields": "fields of each, such as a number or a date; a person decides where one is in doubt",
}
SAMPLES: dict[Documents, str] = {
    "letters": "minimal/inbox/letter.txt",
    "invoices": "invoices/inbox/paint.pdf",
    "mail": "invoices/inbox/piano.eml",
    "table": "folder-digest/inbox/notes/visitor-book.csv",
}
"""A document of each kind from the examples, copied so that a draft runs at once."""

_INCLUDE: dict[Documents, str] = {
    "letters": "**/*.{txt,md,html,pdf,docx}",
    "invoices": "**/*.{pdf,docx,eml,txt}",
    "mail": "**/*.eml",
}
_LABELS: dict[Documents, str] = {
    "letters": "letter, report, minutes, advertisement, other",
    "invoices": "invoice, reminder, receipt, offer, other",
    "mail": "question, order, complaint, newsletter, other",
    "table": "praise, complaint, question, other",
}
_FIELDS: dict[Documents, str] = {
    "letters": "sender: str, written_on: str",
    "invoices": "number: str, total: float, pay_by: str",
    "mail": "sender: str, subject: str",
    "table": "name: str, place: str",
}

# `<<` and `<%` in it are ours, so that `{{` stays the pipeline's. Resolved, because an editable
# install is a tree of links that lacks the data files.
_TEMPLATE = Path(__file__).resolve().parent / "templates" / "draft.yaml.j2"


@dataclass(frozen=True, slots=True)
class DraftAnswers:
    """What a user has, and wants of it."""

    documents: Documents = get_args(Documents)[0]
    result: Result = get_args(Result)[0]


def draft_pipeline(answers: DraftAnswers) -> str:
    """Return the YAML of a pipeline that runs as it is.

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
    names = [field.partition(":")[0].strip() for field in _FIELDS[documents].split(",")]
    is_table = documents == "table"
    return environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        name=f"{documents}-{result}",
        description=f"{RESULTS[result][0].upper()}{RESULTS[result][1:]}.",
        result=result,
        is_table=is_table,
        item="row: doc.values() | first" if is_table else "file: doc.relpath",
        include=_INCLUDE.get(documents),
        sample=SAMPLES[documents].rpartition("/")[2],
        labels=_LABELS[documents],
        fields=_FIELDS[documents],
        names=", ".join(names),
        returned=", ".join(f"{name}: steps.found.output.{name}" for name in names),
    )
