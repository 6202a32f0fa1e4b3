"""What a pipeline asks consent for: what changes it, and what does not."""

import hashlib
from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind, bind_without_inputs, bind_written_starts
from paddock.runner.bind.trust.consent import (
    NotConsented,
    consent_digests,
    digests_to_agree,
    refuse_unconsented,
)
from tests.runner.world import World, carried_out

OWN = "http://127.0.0.1:11434"
PIPELINE = """\
inputs: {tone: plain, depth: "3", where: {type: dir, default: ./docs}}
secrets: {key: {env: THE_KEY}}
mcpServers: {files: {command: ./serve.sh, args: ["{{ inputs.where }}"]}}
on:
  notify: [{when: [failed], command: [./tell.sh]}]
steps:
  - {id: log, uses: run, with: {command: [git, log, "-n", "{{ inputs.depth }}"]}}
  - {id: say, uses: chat, with: {prompt: "In a {{ inputs.tone }} tone: {{ steps.log.stdout }}"}}
  - {id: clean, uses: "./tools.py:clean", with: {text: "{{ steps.say.text }}"}}
  - {id: page, uses: tool, with: {name: http.get, args: {url: "{{ steps.say.text }}"},
            options: {hosts: [a.example]}}}
  - {id: more, uses: tool, with: {name: files.list, args: {}}}
"""
FILES = {
    "tools.py": "import beside\ndef clean(text: str) -> str: return beside.CLEAN",
    "beside.py": "import deep.er\nCLEAN = 1",
    "deep/er.py": "",
    "other.py": "",
    "serve.sh": "#!/bin/sh",
    "tell.sh": "#!/bin/sh",
}


def write(folder: Path, **changes: str) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    file = folder / "p.yaml"
    file.write_text(PIPELINE)
    return file


def consents_of(file: Path) -> frozenset[str]:
    return consent_digests(bind_without_inputs(read_plan(file)), OWN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('log, "-n"', 'show, "-n"'),
        ('depth: "3"', 'depth: "300"'),
        ("default: ./docs", "default: ./private"),
        ("hosts: [a.example]", "hosts: [a.example, b.example]"),
        ("env: THE_KEY", "env: ANOTHER_KEY"),
        ("command: ./serve.sh", "command: /bin/sh"),
        ("[./tell.sh]", "[./tell.sh, '-v']"),
        ("command: [git", "env: {PATH: ./bin}, command: [git"),
        ("command: [git", "stdin: rm, command: [git"),
        ("tools.py:clean", "other/../tools.py:clean"),
    ],
)
def test_another_command_host_server_or_secret_asks_again(
    old: str, new: str, tmp_path: Path
) -> None:
    file = write(tmp_path)
    (tmp_path / "other").mkdir()
    before = consents_of(file)
    assert PIPELINE.count(old) == 1
    file.write_text(PIPELINE.replace(old, new))
    assert not consents_of(file) <= before


ALONE = "steps: [{id: a, uses: run, with: {command: COMMAND}}]\n"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        *(
            (PIPELINE, name)
            for name in ("tools.py", "beside.py", "deep/er.py", "serve.sh", "tell.sh")
        ),
        (PIPELINE.replace("[./tell.sh]", '"sh tell.sh {{ inputs.tone }}"'), "tell.sh"),
        (ALONE.replace("COMMAND", '[sh, -c, "./serve.sh now"]'), "serve.sh"),
        (ALONE.replace("COMMAND", '["env", "CODE=deep/er.py", python3]'), "deep/er.py"),
        (ALONE.replace("COMMAND", "[python3, tools.py]"), "beside.py"),
        (ALONE.replace("COMMAND", "[./er.py], cwd: deep"), "deep/er.py"),
    ],
)
def test_code_that_changed_asks_again_however_a_command_names_it(
    text: str, changed: str, tmp_path: Path
) -> None:
    file = write(tmp_path)
    file.write_text(text)
    before = consents_of(file)
    with (tmp_path / changed).open("a") as code:
        code.write("\n# another")
    assert not consents_of(file) <= before


def test_prompts_and_what_is_not_run_ask_nothing_new_and_less_is_agreed_to(tmp_path: Path) -> None:
    file = write(tmp_path)
    before = consents_of(file)
    (tmp_path / "other.py").write_text("changed")
    file.write_text(PIPELINE.replace("In a ", "With a ").replace("tone: plain", "tone: dry"))
    assert consents_of(file) == before
    file.write_text(PIPELINE.replace("  - {id: more", "  # - {id: more"))
    assert consents_of(file) < before
    file.write_text("steps: [{id: a, uses: prompt, with: {template: x}}]\n")
    assert consents_of(file) == frozenset()


def test_what_an_inner_pipeline_is_given_counts(tmp_path: Path) -> None:
    outer = "steps: [{id: a, uses: pipeline, with: {file: inner.yaml, inputs: {what: ls}}}]\n"
    (tmp_path / "inner.yaml").write_text(
        "inputs: {what: str}\nsteps: [{id: a, uses: run, with: {command: ['{{ inputs.what }}']}}]\n"
    )
    file = tmp_path / "p.yaml"
    file.write_text(outer)
    before = consents_of(file)
    file.write_text(outer.replace("ls", "rm"))
    assert not consents_of(file) <= before


def test_a_run_refuses_code_that_changed_since_it_was_agreed_to(tmp_path: Path) -> None:
    text = "steps: [{id: a, uses: './f.py:one', with: {}}]\nreturns: steps.a.result\n"
    world = World(tmp_path, text, {"f.py": "def one() -> int: return 1"})
    agreed = consents_of(world.file)
    assert carried_out(world, agreed=agreed).returns == 1
    world.write("f.py", "def one() -> int: return 2")
    with pytest.raises(PipelineError) as caught:
        carried_out(world, agreed=agreed)
    assert str(caught.value) == (
        f"{world.file}:1:23: the pipeline wants to call the Python function './f.py:one', and this "
        f"file has no consent for that.\n"
        f"       1 | steps: [{{id: a, uses: './f.py:one', with: {{}}}}]\n"
        f"         |                       ^^^^^^^^^^^^\n"
        f"  If you trust it: `paddock allow '{world.file}'`."
    )


SERVED = """\
on: {TRIGGERS}
inputs: {url: {type: str, required: true}}
models: {m: {ref: a, pool: {url: "{{ inputs.url }}"}}}
steps: [{uses: chat, with: {model: m, prompt: x}}]
"""
BY_PAYLOAD = '{path: /b, inputs: {url: "{{ payload.url }}"}}'
WRITTEN = "{path: /a, inputs: {url: 'http://one:1'}}"


@pytest.mark.parametrize(
    ("triggers", "addresses"),
    [
        (f"webhook: [{WRITTEN}]", ["http://one:1"]),
        (f"webhook: [{BY_PAYLOAD}]", []),
        (f"webhook: [{BY_PAYLOAD}, {WRITTEN}]", ["http://one:1"]),
        (
            "schedule: [{cron: '@daily', inputs: {url: 'http://one:1'}}, "
            "{cron: '@daily', inputs: {url: 'http://two:2'}}]",
            ["http://one:1", "http://two:2"],
        ),
    ],
)
def test_addresses_that_triggers_write_are_agreed_to_and_no_caller_leads_elsewhere(
    triggers: str, addresses: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(SERVED.replace("TRIGGERS", triggers))
    plan = read_plan(file)
    agreed = digests_to_agree(bind_written_starts(plan), OWN)
    for address in ("http://one:1", "http://two:2", "http://one:2", "http://evil:1"):
        run = bind(plan, {"url": address}, cwd=tmp_path, default_models={})
        if address in addresses:
            refuse_unconsented(run, OWN, agreed, file)
            continue
        with pytest.raises(NotConsented) as refused:
            refuse_unconsented(run, OWN, agreed, file)
        assert f"ask {address} for a model" in str(refused.value)
        assert "must stand in the file: as its default" in str(refused.value)


def test_constant_addresses_are_agreed_to_as_before(tmp_path: Path) -> None:
    text = SERVED.replace("TRIGGERS", f"webhook: [{BY_PAYLOAD}]").replace(
        '"{{ inputs.url }}"', "http://one:1"
    )
    (tmp_path / "p.yaml").write_text(text)
    plan = read_plan(tmp_path / "p.yaml")
    assert digests_to_agree(bind_written_starts(plan), OWN) == {
        hashlib.sha256(b'["pool", ["http://one:1"]]').hexdigest()
    }


def test_addresses_that_a_file_gives_an_inner_pipeline_are_agreed_to(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(SERVED.partition("\n")[2])
    file = tmp_path / "p.yaml"
    file.write_text(
        "steps: [{uses: pipeline, with: {file: inner.yaml, inputs: {url: 'http://one:1'}}}]\n"
    )
    plan = read_plan(file)
    run = bind(plan, {}, cwd=tmp_path, default_models={})
    refuse_unconsented(run, OWN, digests_to_agree(bind_written_starts(plan), OWN), file)
    with pytest.raises(NotConsented):
        refuse_unconsented(run, OWN, consents_of(file), file)
