"""Every key of the language, and every fault of a file at once."""

from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.model import Block, Pipeline, StepNode
from tests.pipelines.checked import checked_pipeline

WHOLE = """
# yaml-language-server: $schema=./.paddock/pipeline.schema.json
pipeline: 1
name: folder-digest
description: Summarise every document in a folder, index its chunks, write a digest.

inputs:
  folder: {type: dir, default: ./inbox}
  out:    {type: dir, default: ./summaries}

models:
  writer: {ref: smollm2:135m, ctx: 4k, keep_alive: 15m}
  vec:    {ref: all-minilm, role: embed}

on:
  schedule: [{cron: "0 6 * * 1-5", timezone: Europe/Paris, catch_up: latest}]
  watch:    [{path: "{{ inputs.folder }}", settle: 2s, batch: 10s}]

concurrency: {group: "digest-{{ inputs.folder }}", priority: batch}
defaults: {retry: {times: 2, on: [timeout, worker]}, timeout: {idle: 60s}}

steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}", include: ["**/*.{md,txt,html,pdf}"]}}

  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: parts, uses: split, with: {pages: "{{ steps.text.pages }}", tokens: 1500, overlap: 100, model: writer}}
      - id: summary
        uses: summarise
        with: {model: writer, chunks: "{{ steps.parts.chunks }}", words: 80, context: {previous: 1}}
      - {id: pieces, uses: split, with: {pages: "{{ steps.text.pages }}", tokens: 256, model: vec}}
      - {uses: embed, with: {model: vec, chunks: "{{ steps.pieces.chunks }}"}}
      - uses: files.write
        with: {path: "{{ inputs.out }}/{{ doc.relpath }}.md", text: "{{ steps.summary.text }}", vars: {s: "{{ steps.summary.output }}"}}
    returns: {file: doc.relpath, summary: steps.summary.output}

  - {id: digest, uses: summarise, with: {model: writer, text: "{{ steps.each.results|tojson }}"}}
  - {id: report, uses: files.write, with: {path: "{{ inputs.out }}/DIGEST.md", text: "{{ steps.digest.text }}"}}

returns: {report: steps.report.path, counts: steps.each.counts}

tests:
  - name: two documents, no model
    inputs: {folder: tests/docs, out: "{{ tmp }}"}
    replay: tests/cassettes               # recorded replies: no model, no GPU
    expect:
      - {exists: "{{ tmp }}/DIGEST.md"}
      - {check: returns.counts.failed == 0}
"""  # noqa: E501


def read(text: str, file: str = "news.yaml") -> Pipeline:
    return checked_pipeline(text, file)


def faults(text: str, file: str = "news.yaml") -> list[str]:
    with pytest.raises(PipelineError) as caught:
        read(text, file)
    return [fault.message for fault in caught.value.faults]


def fault(text: str) -> str:
    with pytest.raises(PipelineError) as caught:
        read(text)
    return str(caught.value)


def test_the_whole_example_of_the_language_is_read() -> None:
    pipeline = read(WHOLE)
    assert pipeline.name == "folder-digest"
    assert pipeline.models["writer"].ctx == 4096
    assert pipeline.models["writer"].keep_alive == 900
    assert pipeline.inputs["folder"].type == "dir"
    assert pipeline.on is not None
    assert pipeline.on.watch[0].reconcile == 600
    assert pipeline.concurrency is not None
    assert pipeline.defaults.retry is not None
    assert pipeline.defaults.retry.on == ["timeout", "worker"]
    docs, each, *_ = pipeline.steps
    assert isinstance(docs, StepNode)
    assert isinstance(each, Block)
    assert (each.var, each.over.source) == ("doc", "steps.docs.files")
    assert [node.id for node in each.body][-2:] == ["(embed)", "(files.write)"]
    assert pipeline.tests[0].expect[1].check == "returns.counts.failed == 0"


def test_all_faults_of_a_file_come_at_once_in_its_order() -> None:
    assert faults(
        """
nam: x
pipeline: 2
inputs: {n: {type: int, default: x}, Bad: 1, c: {type: enum}, d: {min: 2}, e: {type: strr}}
models: {w: {ref: x, ctx: 5x, rle: chat}, v: 3}
defaults: {retry: {times: x, on: [sometimes]}, timeout: 5}
on:
  schedule: [{cron: "0 6 * *"}, {cron: "99 * * * *", timezone: Mars/X},
    {cron: "@daily", inputs: {n: "{{ inputs.n }}"}}]
  window: "25:00-1"
  notify: [{when: [nope]}]
concurrency: {group: 5, on_conflict: x}
budget: {time: 5}
steps:
  - {id: A-b, uses: x, with: {a: steps.b.c, b: "{{ foo }", c: "{{ x|uper }}"}}
  - {id: b, uses: y}
  - {id: b, uses: y, cache: never, max_parallel: 0}
  - {id: e, for_each: doc of docs, uses: x, do: []}
  - {id: h, key: x}
  - 5
tests: [{expect: [{}]}, {name: nothing}, {name: none, expect: []}]
"""
    ) == [
        "unknown key 'nam'.",
        "'pipeline' cannot be '2'.",
        "the default of input 'n' must be a whole number, not 'x'.",
        "'Bad' cannot be the name of an input.",
        "in 'c': an enum needs `values`.",
        "in 'd': `min` and `max` belong to `type: int` and `type: float`.",
        "'type' cannot be 'strr'.",
        "'ctx' must be a number of tokens such as 2048 or 16k; it is '5x'.",
        "unknown key 'rle'.",
        "'v' must be a mapping; '3' is a whole number.",
        "'times' must be a whole number; 'x' is text.",
        "'on' cannot be 'sometimes'.",
        "'timeout' must be a mapping; '5' is a whole number.",
        "'cron' must have five fields such as '0 6 * * 1-5' "
        "(minute, hour, day, month, day of the week); this has 4; it is '0 6 * *'.",
        "'cron' must be a cron expression; '99' is not a valid minute; it is '99 * * * *'.",
        "'timezone' must be a time zone such as Europe/Paris or UTC; it is 'Mars/X'.",
        "'inputs' must be values: at a time there is nothing that an expression could read.",
        "'window' must be two times such as '22:00-07:00'; it is '25:00-1'.",
        "'when' cannot be 'nope'.",
        "'group' must be text; '5' is a whole number.",
        "'on_conflict' cannot be 'x'.",
        "'time' must be a duration such as 300ms, 30s, 5m, 2h or 1d; it is '5'.",
        "'A-b' cannot be an id: only small letters, digits and '_' are allowed, beginning with a letter.",  # noqa: E501
        "'steps.b.c' is only a text here.",
        "cannot read the expression '{{ foo }': unexpected '}'.",
        "'{{ x|uper }}' is refused: there is no filter 'uper'.",
        "the id 'b' is already used by the step in line 16.",
        "'cache' cannot be 'never'.",
        "`max_parallel` belongs to `for_each`.",
        "'max_parallel' must be at least 1; it is '0'.",
        "'doc of docs' is not `NAME in EXPRESSION`.",
        "`uses` cannot be combined with `for_each`.",
        "`do` is empty.",
        "this step has no `uses`.",
        "`key` belongs to `for_each`.",
        "a step is a mapping such as {id: docs, uses: files.scan}.",
        "the key 'name' is missing here.",
        "in 'expect': give exactly one of `exists`, `absent`, `check`, `equals`, `contains`, "
        "`lacks`, `regex`, `schema`, `similar`, `judge` and `status`.",
        "the key 'expect' is missing here.",
        "'expect' must not be empty.",
    ]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("models:\nsteps: [{uses: x}]", "Fill it in, or leave 'models' out."),
        ("models: [w]\nsteps: [{uses: x}]", "Write `key: value` without the dashes."),
        ("models: w\nsteps: [{uses: x}]", "Write `key: value` below it."),
        ("steps: {uses: x}", "Begin each entry with '- '."),
        ("steps: [{uses: x, do: y}]", "Write it as `[…]`."),
        ("name: 5\nsteps: [{uses: x}]", "Put it in quotes."),
        ("name: {a: b}\nsteps: [{uses: x}]",
         "If it is meant as text, put it in quotes: braces and brackets have a meaning in YAML."),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_told_with_how_to_write_it(text: str, remedy: str) -> None:
    assert fault(text).endswith(f"\n  {remedy}")


def test_a_check_is_read_once_or_as_a_list_and_must_be_whole() -> None:
    pipeline = read("steps: [{uses: x, reply: {check: text != '', repair: 0}}]")
    step = pipeline.steps[0]
    assert isinstance(step, StepNode)
    assert step.reply is not None
    assert [check.source for check in step.reply.checks.values()] == ["text != ''"]
    assert faults("steps: [{uses: x, reply: {}}]") == [
        "in 'reply': `reply` needs `schema`, or `check`, or both."
    ]
    told = fault("steps: [{uses: x, reply: {check: [words(text, most=3)]}}]")
    assert "Put the whole expression in quotes: in a YAML list a comma ends it." in told


ANCHORS = """\
x-wide: &wide {include: ["**/*.md"], root: ./inbox}
x-bare: steps.nothing.there, {{ not compiled
inputs: {x-text: &text {type: str, default: a}, tone: *text, style: *text}
models: {x-small: &small {ref: m, params: {x-why: small, seed: 1}}, writer: *small, other: *small}
secrets: {x-any: 1}
on: {x-a: "{{ not compiled", schedule: [{cron: "0 6 * * *", x-b: "{{ not compiled"}]}
defaults: {x-c: 1, retry: {times: 1, x-d: 2}}
steps:
  - {id: one, uses: y, with: *wide, x-e: {uses: z}}
  - {id: two, uses: y, with: *wide, reply: {x-f: 1, check: [true]}}
tests: [{name: t, x-g: 1, inputs: {}, expect: [{exists: a, x-h: 2}]}]
"""


def test_anchors_may_stand_in_keys_that_are_free() -> None:
    pipeline = read(ANCHORS)
    one, two = pipeline.steps
    assert isinstance(one, StepNode) and isinstance(two, StepNode)
    assert one.params.data == two.params.data == {"include": ["**/*.md"], "root": "./inbox"}
    assert list(pipeline.inputs) == ["tone", "style"]
    assert list(pipeline.models) == ["writer", "other"]
    assert pipeline.models["other"].params["seed"] == 1
    assert not pipeline.secrets and len(pipeline.tests) == 1


def test_yaml_words_that_are_text_here_work_as_keys_and_values() -> None:
    pipeline = read("on: {window: 22:00-07:00}\nsteps: [{uses: x, cache: off}]")
    assert pipeline.on is not None
    assert pipeline.on.window == "22:00-07:00"
    assert pipeline.steps[0].cache is False


@pytest.mark.parametrize(
    ("written", "kind"), [("x", "str"), (5, "int"), (1.5, "float"), (True, "bool"), ([1], "list")]
)
def test_an_input_may_be_just_its_default(written: Any, kind: str) -> None:
    shown = {True: "true"}.get(written, written) if not isinstance(written, list) else "[1]"
    declared = read(f"inputs: {{a: {shown}}}\nsteps: [{{uses: x}}]").inputs["a"]
    assert (declared.type, declared.default, declared.is_required) == (kind, written, False)


def test_template_files_must_be_there_and_lie_next_to_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bad.md").write_text("line\n{{ x|nope }}")
    (tmp_path / "p" / "raw.md").write_bytes(b"\xff\xfe")
    (tmp_path / "secret.md").write_text("x")
    (tmp_path / "p" / "link.md").symlink_to(tmp_path / "secret.md")
    names = (
        "nope.md",
        "../secret.md",
        "link.md",
        "/etc/passwd",
        "bad.md",
        "raw.md",
        "{{ x }}",
        ".",
    )
    steps = [f'  - {{uses: chat, with: {{prompt: {{file: "{name}"}}}}}}' for name in names]
    assert faults("steps:\n" + "\n".join(steps), str(tmp_path / "p" / "x.yaml")) == [
        "there is no file 'nope.md'.",
        "the file '../secret.md' lies outside the pipeline's folder.",
        "the file 'link.md' lies outside the pipeline's folder.",
        "the file '/etc/passwd' lies outside the pipeline's folder.",
        "in the file 'bad.md', line 2: '{{ x|nope }}' is refused: there is no filter 'nope'.",
        "the file 'raw.md' is not UTF-8 text.",
        "the name of a template file must be a literal, not '{{ x }}'.",
        "the file '.' cannot be read: it is a folder.",
    ]


CRON = "on: {schedule: [{cron: '%s'}]}\nsteps: [{uses: x}]"
DELETES = "on: {watch: {path: a, deletes: %s}}\nsteps: [{uses: a, with: {}}]"
NO_PIPELINE = "a pipeline is a mapping with the key `steps`."


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        *((text, [NO_PIPELINE]) for text in ("", "[]", "5", "steps", "# nothing")),
        ("name: x", ["the key 'steps' is missing here."]),
        ("steps: []", ["'steps' must not be empty."]),
        ("pipeline: 99999999999999999999999999\nsteps: [{uses: x}]",
         ["'pipeline' is too large a number: '99999999999999999999999999'."]),
        ("steps: [{for_each: 'a in [1]', reply: {check: true}, do: [{uses: x}]}]",
         ["`reply` cannot be combined with `for_each`."]),
        ('steps: [{for_each: "a in [1]", do: [{for_each: "a in [2]", do: [{uses: x}]}]}]',
         ["the name 'a' is already used."]),
        ('steps: [{for_each: "inputs in [1]", do: [{uses: x}]}]',
         ["the name 'inputs' is already used."]),
        (DELETES % "pruned", ["'deletes' must be keep, prune, or a table such as "
                              "{prune: true, most: 50%}; it is 'pruned'."]),
        (DELETES % "{most: 101%}", ["'most' must be a percentage such as 50%; it is '101%'."]),
        (DELETES % "{most: 50}", ["'most' must be a percentage such as 50%; it is '50'."]),
        (DELETES % "{mots: 5%}", ["unknown key 'mots'."]),
        *((CRON % cron, []) for cron in ("*/5 * * * *", "0 6 1,15 jan-mar mon-fri", "@daily",
                                         "0 0 * * 7")),
        ("models: {w: smollm2:135m}\nsteps: [{uses: x}]", []),
    ],
)  # fmt: skip
def test_a_file_is_sound_or_has_these_faults(text: str, messages: list[str]) -> None:
    if messages:
        assert faults(text) == messages
    else:
        assert read(text).steps
