"""An annotated template of the language, for whoever writes pipelines by a coding assistant.

One valid YAML file: a pipeline that uses most of the language, with what must be known about it in
comments, and every installed step, tool and check function behind it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from .installed import Installed, ParamRow, StepRow, plain_default
from .one_step import type_words

_WIDTH = 100

HEAD = """\
# A Paddock pipeline. This file is a template: keep what the task needs, remove the rest.
# After each change run `paddock validate FILE`; it tells every fault with line and column. Then
# `paddock plan FILE` (what would be done, and why) and `paddock run FILE` (the same continues).
#
# Rules
# - One step shape: `id`, `uses`, `with`, and control keys. A step's parameters stand only under
#   `with`. ids match [a-z][a-z0-9_]*, are unique in the file, and may be left out where nobody
#   refers to them.
# - Jinja2 in a sandbox. Text under `with`: "{{ steps.x.y }}", in quotes. A text that is exactly
#   one {{ }} keeps the value's type (list, number). `if`, `for_each`, `where`, `key`, `check`,
#   `returns` take a bare expression WITHOUT braces. `steps.x.y` alone under `with` is a fault.
# - Order follows from references. A step runs as soon as what it reads is there; `needs` is for
#   what no reference shows.
# - A list is worked on by `for_each: NAME in EXPRESSION` with `do:`, never by a loop in a template.
#   `where: EXPRESSION` leaves items out; `loop` has index (from 1), index0, first, last, length.
#   Inside `do`, `steps.…` sees the item's own steps and those outside the block. A block `b` offers
#   steps.b.results (in order), .counts, .changed, .failed.
# - Paths are relative to this file and must stay in its folder, or under a `dir` or `path` input.
# - Long texts stand in files: `prompt: {file: prompts/x.md}`; template, system, map, reduce, too.
# - `reply.schema` makes the model answer in that form: JSON Schema, or short: str, int, float,
#   bool, list[str], enum[a, b], a `?` for "or null", mappings. The value is steps.x.output, its
#   JSON steps.x.text.
# - YAML 1.2: no tags, no `<<`; `on`, `yes`, `017` and `12:30` are text. {{ }} and texts with ': '
#   or '?' need quotes. Keys that begin with `x-` are free, for anchors: `x-common: &c {…}`, then
#   `with: *c`.
# - Top level: pipeline name description inputs models mcpServers defaults on concurrency budget
#   secrets steps returns tests; only `steps` is needed. Control keys of a step: id uses with needs
#   if retry timeout cache reply returns; of a block: id for_each where do key max_parallel
#   on_error needs if retry timeout cache returns. `retry.on`: timeout worker busy io check.
#   `timeout`: total or idle. `cache`: auto or off. Durations 30s 5m 2h, sizes 64MiB, contexts 16k.
# - `params` of a model or a step: temperature top_p top_k min_p repeat_penalty presence_penalty
#   frequency_penalty seed stop max_tokens. An answer that ends at its limit is an error unless
#   `max_tokens` is set. A step without `model` takes the only one of its role.
# - A step skipped by `if` gives nulls; what reads more of it than `steps.x.skipped` is skipped too.
#   In `returns`: `steps.x.output.y if not steps.x.skipped else none`.
# - A Python function as a step: `uses: "./my_steps.py:name"`, its parameters under `with`.
# - Tests claim, each in a mapping: exists, absent, check, status; or of a `file:` or an expression
#   `of:` contains, lacks, equals, regex, schema, similar (with `at_least`), judge.
# - Filters: {filters}.
# - Commands, Python functions, MCP servers, other machines, other ports of this one and secrets
#   need the caller's consent:
#   `paddock run FILE --allow run,tool,mcp,network,secrets`. Nothing in the YAML can give it.
"""

PIPELINE = """\
pipeline: 1
name: template
description: Read a folder of documents, take out facts in a fixed form, write them down, sum up.

inputs:                                   # `paddock run FILE -i folder=./other -i words=40`
  folder: {type: dir, default: ./inbox}   # types: str int float bool path dir enum list json
  out: {type: dir, default: ./out}
  words: {type: int, default: 80, min: 10, max: 400}
  tone: {type: enum, values: [plain, formal], default: plain}

models:                                   # a stored name or the path of a GGUF file
  writer: {ref: "smollm2:135m", ctx: 4k, params: {temperature: 0}}
  # vec: {ref: all-minilm, role: embed}

defaults: {retry: {times: 2, on: [timeout, worker]}, timeout: {idle: 60s}}

# budget: {time: 2h, tokens: 500000}      # it stops at an item's border; the same command goes on
# secrets: {key: {env: API_KEY}}          # then "{{ secrets.key }}"
# mcpServers: {file: mcp.json}            # for `tool` and `agent`
# on:                                     # only `paddock up` looks at it
#   schedule: [{cron: "0 6 * * 1-5", timezone: Europe/Paris}]
#   watch: [{path: ./inbox, settle: 2s}]

steps:
  - id: docs
    uses: files.scan
    with: {root: "{{ inputs.folder }}", include: ["**/*.{md,txt,html,pdf}"]}

  # doc has path relpath name stem suffix size modified sha256; unchanged ones cost nothing later
  - id: each
    for_each: doc in steps.docs.files
    on_error: quarantine                  # or fail, skip
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: facts
        uses: chat
        with:
          model: writer
          system: You take facts out of documents. You add nothing.
          prompt: |
            Take the facts out of this document, in a {{ inputs.tone }} tone.

            {{ steps.text.text }}
          on_overflow: truncate           # or error (the default), map-reduce, refine
        reply:
          schema: {title: str, points: "list[str]", kind: "enum[letter, other]", year: "int?"}
          check: ["words(output.title) <= 12", "grounded(output.points, source=steps.text.text)"]
          repair: 1
      - id: sum
        uses: summarise                   # any length: it splits and folds by itself
        with: {model: writer, text: "{{ steps.text.text }}", words: "{{ inputs.words }}"}
      - uses: files.write
        if: steps.facts.output.points | length > 0
        with:
          path: "{{ inputs.out }}/{{ doc.relpath }}.md"
          text: |
            # {{ steps.facts.output.title }}

            {{ steps.sum.text }}
            {% for point in steps.facts.output.points %}
            - {{ point }}
            {% endfor %}
    returns: {file: doc.relpath, kind: steps.facts.output.kind, summary: steps.sum.text}

  - id: digest
    uses: summarise
    with:
      model: writer
      chunks: "{{ steps.each.results | map(attribute='summary') | list }}"
      words: 120
  - id: report
    uses: files.write
    with: {path: "{{ inputs.out }}/DIGEST.md", text: "{{ steps.digest.text }}"}

returns: {report: steps.report.path, counts: steps.each.counts}

tests:                                    # `paddock test FILE --record`, then `--replay` in CI
  - name: nothing fails
    inputs: {folder: ./inbox, out: "{{ tmp }}"}
    replay: tests/cassettes
    expect:
      - {exists: "{{ tmp }}/DIGEST.md"}
      - {check: returns.counts.failed == 0}
"""


def text_of(found: Installed) -> str:
    """Write the template with all that is installed."""
    from paddock.pipelines.filters import FILTERS

    filters = "\n#   ".join(textwrap.wrap(" ".join(sorted(FILTERS)), _WIDTH - 14))
    head = HEAD.replace("{filters}", filters)
    lines = [head, PIPELINE, "# Every installed step: what stands under `with`, and what it gives."]
    for row in found.steps:
        lines += ["#", *_step_lines(row)]
    lines += ["#", *_functions(found)]
    return "\n".join(lines) + "\n"


def _step_lines(row: StepRow) -> Iterator[str]:
    yield from _wrapped(f"# {row.name}: {row.about}", "#     ")
    if row.one_of:
        yield f"#   exactly one of {', '.join(row.one_of)}"
    for param in row.params:
        yield from _wrapped(f"#   {param.name} ({_facts(param)}): {_about(param)}", "#       ")
    if row.outputs:
        yield from _wrapped(f"#   gives {', '.join(row.given)}", "#       ")


def _facts(param: ParamRow) -> str:
    words = type_words(param.schema)
    if param.is_required:
        return f"{words}, needed"
    default = plain_default(param)
    is_plain = default is None or default in ({}, [])
    return words if is_plain else f"{words}, default {json.dumps(default, ensure_ascii=False)}"


def _about(param: ParamRow) -> str:
    return str(param.schema.get("description", "")) or "…"


def _functions(found: Installed) -> Iterator[str]:
    titles = {"check": "Functions for `reply.check`", "tool": "Tools for `tool` and `agent`"}
    for kind, title in titles.items():
        rows = [row for row in found.parts if row.kind == kind]
        yield f"# {title}:"
        for row in rows:
            yield from _wrapped(f"#   {row.name}({row.takes}): {row.about}", "#       ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
