"""What a pipeline asks consent for: what changes it, and what does not."""

import hashlib
from pathlib import Path

import pytest

from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind, bind_written_starts
from paddock.runner.bind.trust.consent import NotConsented, digests_to_agree, refuse_unconsented
from paddock.runner.bind.trust.consents import Consents

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
    starts = bind_written_starts(read_plan(file))
    return digests_to_agree(starts, OWN, Consents(file.parent.with_name("home")))


def agreed(file: Path) -> Consents:
    """Agree to what a file asks for."""
    consents = Consents(file.parent.with_name("home"))
    consents.agree(file, consents_of(file))
    return consents


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


def test_prompts_ask_nothing_new_and_less_is_agreed_to(tmp_path: Path) -> None:
    file = write(tmp_path)
    before = consents_of(file)
    file.write_text(PIPELINE.replace("In a ", "With a ").replace("tone: plain", "tone: dry"))
    assert consents_of(file) == before
    file.write_text(PIPELINE.replace("  - {id: more", "  # - {id: more"))
    assert consents_of(file) < before
    file.write_text("steps: [{id: a, uses: prompt, with: {template: x}}]\n")
    assert consents_of(file) == frozenset()


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
        ("schedule: [{cron: '@daily', inputs: {url: 'http://one:1'}}, "
         "{cron: '@daily', inputs: {url: 'http://two:2'}}]", ["http://one:1", "http://two:2"]),
    ],
)  # fmt: skip
def test_addresses_that_triggers_write_are_agreed_to_and_no_caller_leads_elsewhere(
    triggers: str, addresses: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(SERVED.replace("TRIGGERS", triggers))
    plan = read_plan(file)
    consents = agreed(file)
    for address in ("http://one:1", "http://two:2", "http://one:2", "http://evil:1"):
        run = bind(plan, {"url": address}, cwd=tmp_path, default_models={})
        if address in addresses:
            refuse_unconsented(run, bind_written_starts(plan), OWN, consents, file)
            continue
        with pytest.raises(NotConsented) as refused:
            refuse_unconsented(run, bind_written_starts(plan), OWN, consents, file)
        assert f"ask {address} for a model" in str(refused.value)
        assert "must stand in the file: as its default" in str(refused.value)


def test_constant_addresses_are_agreed_to_as_before(tmp_path: Path) -> None:
    text = SERVED.replace("TRIGGERS", f"webhook: [{BY_PAYLOAD}]").replace(
        '"{{ inputs.url }}"', "http://one:1"
    )
    (tmp_path / "p.yaml").write_text(text)
    assert consents_of(tmp_path / "p.yaml") == {
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
    refuse_unconsented(run, bind_written_starts(plan), OWN, agreed(file), file)
