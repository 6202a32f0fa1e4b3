"""A pipeline whose own output would start it is refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from paddock.engine.request import Role
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.bind.test_watches import faults, pipeline


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
def test_however_it_is_written(tmp_path: Path, watch: str, path: str) -> None:
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
    models: Mapping[Role, str] = {"chat": "m", "embed": "e"}
    plan = read_plan(tmp_path / "news.yaml", text)
    fault = fault_of(lambda: bind(plan, {"other": "sums"}, cwd=tmp_path, default_models=models))
    assert "start the pipeline again and again" in fault.message
