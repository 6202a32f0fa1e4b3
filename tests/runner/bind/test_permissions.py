"""What reaches further than files and models needs the caller's consent."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan, run
from paddock.runner.bind.trust.permissions import NotPermitted
from paddock.runner.core.run_options import RunEnvironment
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke
from tests.runner.world import run_arguments, settings

WANTS_ALL = """\
name: wants
inputs: {where: {default: "http://gpu-2:8000"}}
secrets:
  key: {env: GPU_KEY}
  token: {file: token.txt}
models:
  near: {ref: m, ctx: 4k, pool: {url: "http://127.0.0.1:8080"}}
  far:
    ref: m
    pool: {url: ["http://gpu-1:8000/v1", "{{ inputs.where }}"], key: "{{ secrets.key }}"}
on:
  notify:
    - {when: [failed], webhook: "https://hooks.example/x"}
    - {when: [failed], webhook: "http://127.0.0.1:9/x"}
    - {when: [failed], command: [notify-send, Paddock]}
    - {when: [failed], email: me@example.org}
    - {when: [failed], service: "ntfy://ntfy.sh/topic"}
steps:
  - {id: a, uses: chat, with: {model: far, prompt: "{{ secrets.token }}"}}
  - {id: b, uses: chat, with: {model: near, prompt: Hi}}
"""

REFUSED = """\
{file}:4:8: the pipeline wants to read the environment variable GPU_KEY, which needs 'secrets'.
       4 |   key: {{env: GPU_KEY}}
         |        ^^^^^^^^^^^^^^
  {remedy}
{file}:5:10: the pipeline wants to read the file token.txt, which needs 'secrets'.
       5 |   token: {{file: token.txt}}
         |          ^^^^^^^^^^^^^^^^^
  {remedy}
{file}:7:39: the pipeline wants to ask http://127.0.0.1:8080 (another program on this machine) for \
a model, which needs 'network'.
       7 |   near: {{ref: m, ctx: 4k, pool: {{url: "http://127.0.0.1:8080"}}}}
         |                                       ^^^^^^^^^^^^^^^^^^^^^^^
  {remedy}
{file}:10:17: the pipeline wants to ask http://gpu-1:8000 and http://gpu-2:8000 for a model, which \
needs 'network'."""

PROGRAM_HERE = " (another program on this machine)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wants.yaml"
    path.write_text(WANTS_ALL)
    return path


def where(program: str) -> str:
    return f" ({shutil.which(program) or 'which is not there'})"


def refused(file: Path, *allowed: str, notify: bool | None = True) -> NotPermitted:
    own = replace(settings(file.parent), allow=frozenset(allowed))
    with pytest.raises(NotPermitted) as caught:
        run(file, None, *run_arguments(local=True, notify=notify, pool=FakePool(), settings=own))
    return caught.value


def test_a_pipeline_that_wants_more_than_it_may_have_is_refused_with_the_list(file: Path) -> None:
    error = refused(file)
    with pytest.raises(NotPermitted) as planned:
        plan(file, pool=FakePool(), settings=settings(file.parent))
    assert planned.value.needs == tuple(need for need in error.needs if not need.is_of_up)
    names = "run,network,secrets"
    remedy = f'If you trust it: `--allow {names}`, or `allow = "{names}"` in '
    remedy += "~/.config/paddock/paddock.toml."
    assert str(error).startswith(REFUSED.format(file=file, remedy=remedy))
    assert [(need.name, need.what) for need in error.needs] == [
        ("secrets", "read the environment variable GPU_KEY"),
        ("secrets", "read the file token.txt"),
        ("network", f"ask http://127.0.0.1:8080{PROGRAM_HERE} for a model"),
        ("network", "ask http://gpu-1:8000 and http://gpu-2:8000 for a model"),
        ("network", "call https://hooks.example/x when a run has ended"),
        ("network", f"call http://127.0.0.1:9/x{PROGRAM_HERE} when a run has ended"),
        ("run", f"run `notify-send Paddock`{where('notify-send')} when a run has ended"),
        ("network", "send mail to me@example.org when a run has ended"),
        ("network", "send a message by ntfy://ntfy.sh/topic when a run has ended"),
    ]
    assert not (file.parent / ".paddock").exists()


ONLY_UP = """\
name: notes
secrets: {hook: {env: HOOK_KEY}, top: {env: TOP_KEY}}
on:
  webhook: [{path: /notes, secret: "{{ secrets.hook }}"}]
  notify:
    - {when: [failed], command: [notify-send, Paddock]}
    - {when: [failed], email: me@example.org}
steps:
  - {id: out, uses: files.write, with: {path: out.txt, text: "%s"}}
"""


def test_a_run_by_hand_needs_no_consent_for_what_only_up_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(ONLY_UP % "no secret")
    monkeypatch.setenv("TOP_KEY", "long enough")
    monkeypatch.delenv("HOOK_KEY", raising=False)
    needs = refused(file, notify=None).needs
    assert [need.what for need in needs] == ["read the environment variable TOP_KEY"]
    given = {"local": True, "allow": {"secrets"}, "settings": settings(tmp_path)}
    assert run(file, None, *run_arguments(**given)).status == "completed"
    with pytest.raises(NotPermitted) as error:
        run(file, None, *run_arguments(**given, notify=True))
    assert {need.name for need in error.value.needs} == {"run", "network"}
    file.write_text(ONLY_UP % "{{ secrets.hook }}")
    with pytest.raises(PipelineError, match="HOOK_KEY"):
        run(file, None, *run_arguments(**given))


WANTS_TOOLS = """\
mcpServers:
  files: {command: npx, args: [-y, "a server"]}
  near: {url: "http://127.0.0.1:9/mcp"}
  far: {url: "http://gpu-1/mcp"}
  unused: {command: rm}
steps:
  - {id: a, uses: run, with: {command: [git, log, "{{ 1 }}"]}}
  - {id: b, uses: tool, with: {name: calculator, args: {expression: "1"}}}
  - {id: c, uses: tool, with: {name: "tools.py:clean"}}
  - {id: d, uses: tool, with: {name: files.read_file}}
  - {id: e, uses: tool, with: {name: x, server: near}}
  - {id: f, uses: tool, with: {name: x, server: far}}
  - {id: g, uses: tool, with: {name: y, server: far}}
  - for_each: n in [1, 2]
    do:
      - uses: tool
        with: {name: http.get, args: {url: "http://x"}, options: {hosts: [example.org, localhost]}}
"""


def test_commands_tools_and_servers_that_steps_use_are_listed_once_each(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def clean(): ...")
    file = tmp_path / "wants.yaml"
    file.write_text(WANTS_TOOLS)
    needs = [(need.name, need.mark and need.mark.line, need.what) for need in refused(file).needs]
    assert needs == [
        ("mcp", 2, "start the MCP server 'files': `npx -y 'a server'`" + where("npx")),
        ("mcp", 3, "ask the MCP server 'near' at http://127.0.0.1:9/mcp"),
        ("network", 4, "ask the MCP server 'far' at http://gpu-1/mcp"),
        ("run", 7, "run `git log 1`" + where("git")),
        ("tool", 9, "call the function `tools.py:clean`"),
        ("network", 17, "fetch from example.org, localhost"),
    ]
    assert {need.name for need in refused(file, "mcp", "run", "tool").needs} == {"network"}
    assert not (tmp_path / ".paddock").exists()


REACHES = """\
inputs: {{where: localhost}}
models: {{m: {{ref: m, pool: {{url: "{url}"}}}}}}
mcpServers: {{s: {{url: "{server}"}}}}
on: {{notify: [{{when: [failed], webhook: "{webhook}"}}]}}
steps:
  - {{id: a, uses: chat, with: {{model: m, prompt: x}}}}
  - {{id: b, uses: tool, with: {{name: s.x}}}}
  - id: c
    uses: tool
    with: {{name: http.get, args: {{url: "http://x"}}, options: {{hosts: ["{host}"]}}}}
"""
OWN = {
    "url": "http://localhost:11434",
    "server": "http://localhost:11434/mcp",
    "webhook": "http://127.0.0.1:11434/x",
    "host": "localhost:11434",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("url", "http://127.0.0.1:5432"),
        ("url", "http://{{{{ inputs.where }}}}:5432"),
        ("url", "http://0x7f.1:6379"),
        ("url", "http://[::ffff:127.0.0.1]:6379"),
        ("url", "http://0.0.0.0:11434"),
        ("url", "http://localhost.evil.example:11434"),
        ("url", "http://169.254.169.254"),
        ("server", "http://localhost{{% if false %}}x{{% endif %}}.evil.example/"),
        ("server", "http://user@localhost:11434/"),
        ("server", "http://localhost{{# #}}:11434/"),
        ("webhook", "http://localhost{{% if false %}}x{{% endif %}}.evil.example:11434/"),
        ("webhook", "http://localhost:11434@evil.example/"),
        ("webhook", "http://localhost:5432/"),
        ("host", "localhost"),
        ("host", "127.0.0.1"),
        ("host", "127.0.0.1:5432"),
        ("host", "0.0.0.0/0"),
        ("host", "*.localhost:11434"),
    ],
)
def test_all_but_our_own_service_needs_consent_however_it_is_written(
    tmp_path: Path, name: str, text: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(REACHES.format(**{**OWN, name: text.format()}))
    assert "network" in {need.name for need in refused(file, "mcp").needs}


def test_our_own_service_needs_no_consent(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(REACHES.format(**OWN))
    assert [need.name for need in refused(file).needs] == ["mcp"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.0/0", "{% if false %}@localhost/{% endif %}192.0.2.2", "@localhost/", "[", "{{ x }}"],
)
def test_a_host_that_is_none_is_a_fault_for_plan_and_run_with_its_place(
    tmp_path: Path, host: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(REACHES.format(**{**OWN, "host": host}))
    around: dict[str, Any] = {"pool": FakePool(), "settings": settings(tmp_path)}
    environment = RunEnvironment(**around)
    for verb in (lambda: plan(file, **around), lambda: run(file, environment=environment)):
        with pytest.raises(PipelineError) as caught:
            verb()

        assert "p.yaml:10:" in str(caught.value) and "`hosts`: '" in str(caught.value)


AS_IT_RUNS = """\
inputs:
  n: {type: int, default: 5}
  folder: {type: dir, default: src}
  key: {type: str, default: hunter2, secret: true}
mcpServers:
  own: {command: "{{ python }}", args: [serve.py, "{{ inputs.folder }}"], env: {TOKEN: abc}}
steps:
  - {id: a, uses: run, with: {command: [git, log, "-n{{ inputs.n }}"], cwd: "{{ inputs.folder }}"}}
  - {id: b, uses: run, with: {command: [sh, -c, "echo $A"], env: {A: "1", B: "{{ inputs.key }}"}}}
  - {id: c, uses: run, with: {command: [./build.sh, "{{ inputs.key }}"]}}
  - {id: d, uses: tool, with: {name: own.x}}
  - for_each: n in [1, 2]
    do:
      - {uses: run, with: {command: [echo, "{{ n }} of {{ inputs.n }}"]}}
      - {uses: run, with: {command: ["{{ n }}"], cwd: "{{ n }}"}}
"""
LATER = "(what stands in braces is filled in when it runs)"


def test_commands_are_listed_as_they_will_run(tmp_path: Path) -> None:
    (tmp_path / "build.sh").touch()
    file = tmp_path / "wants.yaml"
    file.write_text(AS_IT_RUNS)
    assert [need.what for need in refused(file).needs] == [
        f"start the MCP server 'own': `{sys.executable} serve.py {tmp_path}/src` with TOKEN set",
        f"run `git log -n5`{where('git')} in '{tmp_path}/src'",
        f"run `sh -c 'echo $A'`{where('sh')} with A, B set",
        f"run `./build.sh '{{{{ inputs.key }}}}'` ({tmp_path}/build.sh) {LATER}",
        f"run `echo '{{{{ n }}}} of {{{{ inputs.n }}}}'`{where('echo')} {LATER}",
        f"run `'{{{{ n }}}}'` in '{{{{ n }}}}' {LATER}",
    ]


def test_the_command_line_allows_by_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(file.parent / "home"))
    some = invoke("run", str(file), "--local", "--allow", "network", "--allow", "run")
    assert some.exit_code == 2
    assert "which needs 'secrets'" in some.stderr
    assert "which needs 'network'" not in some.stderr
    none = invoke("run", str(file), "--local", "--allow", "everything")
    assert (none.exit_code, none.stderr) == (
        2,
        "--allow: 'everything' is not known.\n  Known: run, tool, mcp, network, secrets.\n",
    )


def test_a_strange_settings_file_cannot_send_documents_to_another_machine(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("steps: [{id: a, uses: prompt, with: {template: hello}}]\n")
    (tmp_path / "paddock.toml").write_text('pool = "http://gpu.example:8000"\n')
    refused = invoke("run", str(file), "--local", "--allow", "network")
    assert refused.exit_code == 2
    beside = tmp_path / "paddock.toml"
    assert refused.stderr.startswith(f"{beside}: 'pool' cannot be set in a file beside a pipeline")
