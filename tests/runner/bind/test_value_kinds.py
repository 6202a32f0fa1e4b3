"""What a step would refuse behind the model calls before it is said before a run."""

from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.steps.tables.table_files import written_suffixes
from tests.runner.bind.pipeline_faults import faults_of, sentences

BLOCK = """\
steps:
  - {{id: docs, uses: files.scan, with: {{root: inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - id: found
        uses: chat
        with: {{prompt: "{{{{ steps.text.text }}}}"}}
        reply: {{schema: {{kind: str, n: int}}}}
    returns: {returns}
  - {step}
"""
KIND = "{kind: steps.found.output.kind}"
FORMATS = f"End it in {', '.join(f'`{suffix}`' for suffix in written_suffixes())}."
NO_KINDS = "the results of 'each' have no field 'kinds'. Known: 'kind'. Did you mean 'kind'?"
TO_TEXT = 'Make text of it: `| tojson`, or `| join(", ")`.'


def said(step: str, returns: str = KIND) -> list[str]:
    return sentences(faults_of(BLOCK.format(step=step, returns=returns)))


def writes(parameters: str) -> str:
    return f"{{uses: files.write, with: {{{parameters}}}}}"


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            writes('path: out/x.ods, rows: "{{ steps.each.results }}"'),
            f"'x.ods' has no suffix of a format for rows. {FORMATS}",
        ),
        (
            writes('path: "{{ steps.docs.files }}.ods", rows: "{{ steps.each.results }}"'),
            f"'….ods' has no suffix of a format for rows. {FORMATS}",
        ),
        (writes("path: out/, text: x"), "'out/' names a folder; `path` must name a file."),
        (
            writes("path: x.txt, text: x, waiting: []"),
            "step 'files.write': `waiting` belongs to `rows`. A template can read it by itself.",
        ),
        (
            writes('path: x.txt, text: "{{ steps.each.results }}"'),
            f"'text' must be text; this is a list. {TO_TEXT}",
        ),
        (
            '{uses: split, with: {text: "{{ steps.docs }}"}}',
            f"'text' must be text; this is a mapping. {TO_TEXT}",
        ),
        (
            writes('path: x.csv, rows: "{{ steps.each.counts }}"'),
            "'rows' must be a list; this is a mapping.",
        ),
        (
            writes('path: x.csv, rows: "{{ steps.each.results | tojson }}"'),
            "'rows' must be a list; '…' is text.",
        ),
        (
            '{uses: reduce, with: {over: "{{ steps.each.results }}", by: kinds, prompt: x}}',
            NO_KINDS,
        ),
        (
            '{uses: reduce, with: {over: "{{ steps.each.results }}", prompt: x, '
            'by: "{{ item.kinds | upper }}"}}',
            NO_KINDS,
        ),
        (
            """{uses: reduce, with: {over: [x], by: "item.kind ~ '1'", prompt: x}}""",
            "`by`: 'item.kind ~ '1'' is only a text here. Did you mean `{{ item.kind ~ '1' }}`?",
        ),
        (
            writes('path: x.md, vars: {mails: "{{ steps.each.results }}"}, '
                   'template: "{% for mail in mails %}{{ mail.kinds }}{% endfor %}"'),
            NO_KINDS,
        ),
        (
            "{uses: files.move, with: {path: a.txt, mode: copy}}",
            "step 'files.move': give `to`, or `mode: delete`.",
        ),
        (
            "{uses: files.rows, with: {path: a.csv, columns: {when: data}}}",
            "'when' must be one of 'str', 'int', 'float', 'bool', 'date', 'time', 'datetime', "
            "'decimal'; it is 'data'.",
        ),
        (
            "{uses: files.rows, with: {path: a.csv, encoding: klingon}}",
            "in 'encoding': 'klingon' is not a known encoding; try `utf-8`, or leave it out.",
        ),
        (
            "{for_each: n in steps.each.counts == 3, do: [{uses: files.scan, with: {root: .}}]}",
            "block '(for_each)' goes over a boolean, which is no list. "
            "Name a list, such as `steps.docs.files`.",
        ),
        (
            "{uses: files.scan, with: {root: ../other}}",
            f"path '../other' leads outside the pipeline's folders ('{Path.cwd()}'). Stay within "
            "these, or read an input of type `dir` that has no default, and give it to a run: "
            "`-i NAME=…`.",
        ),
    ],
)  # fmt: skip
def test_what_fails_behind_the_model_calls_is_a_fault_before_them(step: str, sentence: str) -> None:
    assert said(step) == [sentence]


@pytest.mark.parametrize(
    "step",
    [
        writes('path: x.txt, text: "{{ steps.docs.files | length }}"'),
        writes('path: "{{ steps.docs.files[0].name }}", rows: "{{ steps.each.results }}"'),
        writes('path: x.csv, rows: "{{ steps.docs.files }}"'),
        '{uses: summarise, with: {text: "{{ steps.each.results | join }}", '
        'words: "{{ steps.each.counts.done }}"}}',
    ],
)  # fmt: skip
def test_what_only_a_run_knows_is_no_fault(step: str) -> None:
    assert said(step) == []


FILLS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: index
    for_each: doc in steps.docs.files
    do: [{uses: embed, with: {texts: ["{{ doc.relpath }}"], store: "x.lance"}}]
"""
SEARCH = "  - {id: found, uses: search, with: {store: %s, query: a}%s}\n"


def test_a_search_that_does_not_wait_is_a_fault_at_its_store() -> None:
    (fault,) = faults_of(FILLS + SEARCH % ("x.lance", ""))
    assert str(PipelineError([fault])) == (
        "p.yaml:6:45: 'found' searches the store 'x.lance', which 'index' fills, but does not wait "
        "for it.\n"
        "       6 |   - {id: found, uses: search, with: {store: x.lance, query: a}}\n"
        "         |                                             ^^^^^^^\n"
        "  Add `needs: [index]` to 'found'."
    )
