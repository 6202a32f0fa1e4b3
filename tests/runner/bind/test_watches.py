"""What cannot go well with a watch is refused before anything runs, each thing by its full text."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from paddock.engine.request import Role
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.folders.file_filter import WatchSpec, watch_specs
from tests.runner.bind.pipeline_faults import fault_of, faults_of, sentences

HEAD = """\
name: news
inputs:
  folder: {type: dir, default: ./inbox}
  out: {type: dir, default: ./sums}
  other: {type: dir, required: true}
on:
  watch:
    - WATCH
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: page, uses: files.write, with: {path: "PATH", text: "{{ steps.text.text }}"}}
"""
MODELS: Mapping[Role, str] = {"chat": "m", "embed": "e"}


def pipeline(watch: str, path: str, step: str = "") -> str:
    """Return the pipeline with a watch, the path of its pages, and a step more in its block."""
    more = f"      - {{id: more, uses: {step}}}\n" if step else ""
    return HEAD.replace("WATCH", watch).replace("PATH", path) + more


def faults(
    folder: Path, watch: str, path: str = "{{ inputs.out }}/{{ doc.relpath }}", step: str = ""
) -> tuple[Fault, ...]:
    return faults_of(pipeline(watch, path, step), folder / "news.yaml")


@pytest.mark.parametrize(
    ("watch", "faulty"),
    [
        ("{path: ../elsewhere}", "path '../elsewhere' leads outside the pipeline's folders "
         "('BASE'). Stay within these, or read an input of type `dir` that has no default, and "
         "give it to a run: `-i NAME=…`."),
        ('{path: inbox, include: ["a[b"]}', None),  # a bracket that does not close is a bracket
        ("{path: hot, claim: move}", "with `claim: move` documents are worked on in "
         "'hot/processing', and no `files.scan` lists that folder. "
         'Scan it: `root: "hot/processing"`.'),
    ],
)  # fmt: skip
def test_other_faults(tmp_path: Path, watch: str, faulty: str | None) -> None:
    found = sentences(faults(tmp_path, watch))
    assert found == ([faulty.replace("BASE", str(tmp_path))] if faulty else [])


@pytest.mark.parametrize(
    ("move", "is_refused"),
    [
        ('{path: "{{ doc.path }}", to: done/}', True),
        ('{path: "{{ doc.path }}", mode: delete}', True),
        ('{path: "{{ doc.path }}", to: copies/, mode: copy}', False),
        ('{path: "{{ inputs.out }}/log", to: old/}', False),
    ],
)
def test_who_moves_documents_away_prunes_nothing(
    tmp_path: Path, move: str, is_refused: bool
) -> None:
    step = f"files.move, with: {move}"
    found = faults(tmp_path, "{path: inbox, deletes: prune}", "sums/{{ doc.relpath }}", step)
    expected = (
        "step 'more' takes documents out of their folder, so `deletes: prune` would remove all "
        "that was made of them. Remove one of the two, or copy with `mode: copy`."
    )
    assert sentences(found) == ([expected] if is_refused else [])


@pytest.mark.parametrize(
    ("watch", "step", "exclude"),
    [
        ("{path: inbox}", 'files.move, with: {path: "{{ doc.path }}", to: inbox/done/}', "/done/"),
        ('{path: inbox, include: ["*.txt"]}',
         'files.move, with: {path: "{{ doc.path }}", to: inbox/done/}', "/done/"),
        ('{path: inbox, include: ["**/*.{txt,md}"]}',
         'files.move, with: {path: "{{ doc.path }}", to: "inbox/done/{{ doc.name }}"}', "/done/"),
        ('{path: inbox, include: ["*.txt"]}',
         'files.move, with: {path: "{{ doc.path }}", to: inbox/there}', "/there/"),
        ("{path: inbox}", "embed, with: {texts: [a], store: inbox/index.lance}", None),
    ],
)  # fmt: skip
def test_what_other_steps_bring_into_a_watched_folder_is_refused_as_well(
    tmp_path: Path, watch: str, step: str, exclude: str | None
) -> None:
    (tmp_path / "inbox/there").mkdir(parents=True)
    (fault,) = faults(tmp_path, watch, "sums/{{ doc.relpath }}", step)
    assert "would see what step 'more' writes" in fault.message
    if exclude is not None:
        assert fault.remedy.endswith(f'or set `exclude: ["{exclude}"]`.')
        heeded = watch.replace("path: inbox", f'path: inbox, exclude: ["{exclude}"]')
        assert faults(tmp_path, heeded, "sums/{{ doc.relpath }}", step) == ()


def test_two_watches_on_one_folder_are_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "{path: inbox}\n    - {path: ./inbox/}")
    assert fault.message == "two watches are on the same folder './inbox/'."
    assert fault.remedy == "Make one of them, with both globs in `include`."


def test_what_a_watch_looks_at(tmp_path: Path) -> None:
    watch = "path: inbox, settle: 5s, batch: 1m, reconcile: 1h, deletes: prune"
    text = pipeline(f'{{{watch}, include: ["*.txt"]}}', "sums/DIGEST.md")
    plan = read_plan(tmp_path / "news.yaml", text)
    bound = bind(plan, {"other": "x"}, cwd=tmp_path, default_models=MODELS)
    assert watch_specs(bound) == (
        WatchSpec(
            name="news.yaml:inbox",
            root=tmp_path / "inbox",
            include=("*.txt",),
            settle_s=5,
            batch_s=60,
            reconcile_s=3600,
            file=str(tmp_path / "news.yaml"),
            ignored=(tmp_path / "sums/DIGEST.md", tmp_path / "news.yaml"),
        ),
    )


def test_a_watch_on_its_own_output_folder_is_refused(tmp_path: Path) -> None:
    watch = '{path: "{{ inputs.folder }}"}'
    (fault,) = faults(tmp_path, watch, "inbox/sums/{{ doc.relpath }}.md")
    file = tmp_path / "news.yaml"
    assert str(PipelineError([fault])) == (
        f"{file}:8:14: the watch on '{{{{ inputs.folder }}}}' would see what step 'page' writes, "
        f"'inbox/sums/….md', and start the pipeline again and again.\n"
        f'       8 |     - {{path: "{{{{ inputs.folder }}}}"}}\n'
        f"         |              ^^^^^^^^^^^^^^^^^^^^^\n"
        f'  Write into another folder, or set `exclude: ["/sums/"]`.'
    )


@pytest.mark.parametrize(
    ("watch", "path"),
    [
        ("{path: inbox}", "inbox/{{ doc.stem }}.md"),
        ("{path: inbox}", "{{ inputs.folder }}/DIGEST.md"),
        ("{path: .}", "{{ inputs.out }}/{{ doc.relpath }}"),
        ("{path: sums}", "{{ inputs.out }}/{% if doc.size %}a{% endif %}.md"),
        ('{path: inbox, include: ["*.md"]}', "inbox/{{ doc.stem }}.md"),
        ("{path: ./inbox/../sums}", "sums/a.md"),
    ],
)
def test_a_watch_on_its_own_output_is_refused_however_it_is_written(
    tmp_path: Path, watch: str, path: str
) -> None:
    (fault,) = faults(tmp_path, watch, path)
    assert "start the pipeline again and again" in fault.message


@pytest.mark.parametrize(
    ("watch", "path"),
    [
        ("{path: inbox}", "sums/{{ doc.stem }}.md"),
        ("{path: inbox}", "{{ doc.path }}.md"),
        ('{path: inbox, include: ["*.txt"]}', "inbox/{{ doc.stem }}.md"),
        ('{path: inbox, exclude: ["/sums/"]}', "inbox/sums/{{ doc.relpath }}.md"),
        ('{path: ., include: ["inbox/**"]}', "{{ inputs.out }}/{{ doc.relpath }}"),
        ("{path: inbox}", "inbox/.sums/{{ doc.relpath }}"),
        ('{path: "{{ inputs.other }}"}', "inbox/{{ doc.relpath }}"),
        ("{path: inbox}", "inboxes/{{ doc.relpath }}"),
    ],
)
def test_what_does_not_start_itself_is_taken(tmp_path: Path, watch: str, path: str) -> None:
    assert faults(tmp_path, watch, path) == ()


def test_the_folder_that_an_input_gives_is_looked_at_when_it_is_given(tmp_path: Path) -> None:
    text = pipeline('{path: "{{ inputs.other }}"}', "{{ inputs.out }}/a.md")
    plan = read_plan(tmp_path / "news.yaml", text)
    fault = fault_of(lambda: bind(plan, {"other": "sums"}, cwd=tmp_path, default_models=MODELS))
    assert "start the pipeline again and again" in fault.message
