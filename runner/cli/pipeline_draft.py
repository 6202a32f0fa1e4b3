"""A first pipeline from three answers: which documents, what to make of them, where.

A draft uses the models that come with Paddock, and only for what these do well: whole sentences of
a document, a label from a list, short fields with evidence. Comments say what to change.
"""

from __future__ import annotations

from dataclasses import dataclass
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

# `<<` and `<%` are ours, so that `{{` stays the pipeline's.
_TEMPLATE = """\
# yaml-language-server: $schema=./.paddock/pipeline.schema.json
name: << name >>
description: << description >>

inputs:
<% if is_table %>
  table: {type: path, default: ./inbox/<< sample >>}   # another: paddock run -i table=PATH
<% else %>
  folder: {type: dir, default: ./inbox}   # another: paddock run -i folder=PATH
<% endif %>

<% if result != "summaries" %>
models:   # small; `paddock models` proposes a better one for this machine
  clerk: {ref: smollm2:135m, ctx: 4k, params: {max_tokens: 80}}

<% endif %>
steps:
<% if is_table %>
  - {id: docs, uses: files.rows, with: {path: "{{ inputs.table }}"}}
<% else %>
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}", include: ["<< include >>"]}}
<% endif %>

  - id: each
<% if is_table %>
    for_each: doc in steps.docs.rows
    do:
      - {id: text, uses: prompt, with: {template: "{{ doc.values() | join(', ') }}"}}
<% else %>
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
<% endif %>
<% if result == "summaries" %>
      - id: short   # its most telling sentences, word for word; `how: write` needs a larger model
        uses: summarise
        with: {text: "{{ steps.text.text }}", how: extract, words: 60}
    returns: {<< item >>, text: steps.short.text}

  - id: page
    uses: files.write
    with:
      path: out/SUMMARIES.md
      vars: {docs: "{{ steps.each.results }}"}
      template: |
        {% for doc in docs %}
        ## {{ doc.<< 'row' if is_table else 'file' >> }}

        {{ doc.text }}

        {% endfor %}
<% elif result == "labels" %>
      - id: label
        uses: chat
        with: {model: clerk, prompt: "{{ steps.text.text }}\\n\\nWhat kind of text is this?"}
        reply:
          schema: {label: "enum[<< labels >>]"}   # the labels: change them
          confidence: true
        review: {when: confidence.label.p < 0.6}   # `paddock review` asks a person about these
    returns: {<< item >>, label: steps.label.output.label}
<% else %>
      - id: found
        uses: chat
        with: {model: clerk, prompt: "{{ steps.text.text }}\\n\\nName the fields: << names >>."}
        reply:
          schema: {<< fields >>}   # the fields: change them
          evidence: steps.text     # where each value stands in the document
          confidence: true
        review: {when: confidence.min < 0.8 or evidence.missing}   # `paddock review` asks a person
    returns: {<< item >>, << returned >>}
<% endif %>
<% if result != "summaries" %>

  - id: table
    uses: files.write
    with:
      path: out/<< result >>.csv
      rows: "{{ steps.each.results }}"
      waiting: "{{ steps.each.waiting }}"   # those that wait for a person are marked
<% endif %>

returns: {counts: steps.each.counts}
"""


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
    return environment.from_string(_TEMPLATE).render(
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
