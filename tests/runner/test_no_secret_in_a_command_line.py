"""No command line has a secret, whatever our commands start; and few environments have one.

All users of a machine read command lines. An environment is its own user's: of programs that work
on what others wrote it has no secret but those that the pipeline gives them.
"""

import base64
import hashlib
import hmac
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from paddock.runner.daemon.prefect_auth import password_file
from tests.fakes import http_server
from tests.fakes.clerk import Said, clerk
from tests.fakes.process_list import SeenCommandLines, watched_process_list
from tests.prefect_server import seed
from tests.runner.cli.commands.shell import paddock
from tests.runner.cli.commands.test_serve import serving
from tests.runner.schedule.up_process import UpFolder
from tests.runner.world import each_document

MCP = Path(__file__).parents[1] / "fakes/small_mcp_server.py"
BILLS = """\
name: bills
secrets:
  hook: {env: HOOK_KEY}
  model: {env: MODEL_KEY}
  tool: {env: TOOL_KEY}
  run: {env: RUN_KEY}
  post: {env: POST_KEY}
on:
  webhook: [{path: /bills, secret: "{{ secrets.hook }}"}]
  notify:
    - {when: [quarantined], email: ops@example.org}
    - {when: [quarantined], webhook: "http://127.0.0.1:9/{{ secrets.post }}"}
    - when: [quarantined]
      command: [sh, -c, "until [ -e SEEN/notice ]; do sleep 0.1; done; : told"]
mcpServers:
  fake: {command: PYTHON, args: ["SERVER"], env: {FAKE_KEY: "{{ secrets.tool }}"}}
models:
  clerk: {ref: clerk, ctx: 8192, pool: {url: "URL", key: "{{ secrets.model }}"}}
  vec: {ref: all-minilm, role: embed}
""" + each_document("""\
      - id: bill
        uses: chat
        with: {model: clerk, prompt: "{{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}, evidence: steps.text}
      - {uses: embed, with: {model: vec, texts: ["{{ steps.bill.text }}"], store: out/index.lance}}
      - {id: known, uses: tool, with: {name: fake.facts, args: {name: ferry}}}
      - {id: clean, uses: tool, with: {name: "tools.py:clean", args: {text: "{{ doc.name }}"}}}
      - uses: run
        with:
          command: [sh, -c, "until [ -e SEEN/command ]; do sleep 0.1; done; test $KEY && exit 3"]
          env: {KEY: "{{ secrets.run }}"}
""")
TOOLS = '''
import os

def clean(text: str) -> str:
    """Clean a text."""
    return text.strip() + str(sorted(os.environ))
'''
OF_THE_PIPELINE = ("HOOK_KEY", "MODEL_KEY", "TOOL_KEY", "RUN_KEY", "POST_KEY")
OURS = ("PADDOCK_SMTP", "PADDOCK_API_KEY", "PADDOCK_POOL_KEY", "PADDOCK_LEDGER")


@pytest.fixture
def words() -> dict[str, str]:
    """A secret for each place that takes one."""
    names = (*OF_THE_PIPELINE, *OURS, "registry")
    return {name: f"s3cr3t{secrets.token_hex(12)}" for name in names}


def refuse_in(seen: SeenCommandLines, known: dict[str, str], *own: str) -> None:
    """Fail where a command line has a secret, in any common spelling."""
    spelled = [
        text
        for secret in (*known.values(), *own)
        for text in (secret, base64.b64encode(secret.encode()).decode(), secret.encode().hex())
    ]
    assert seen.with_any(*spelled) == []


def test_of_all_that_up_starts_no_command_line_has_a_secret(
    tmp_path: Path, url: str, words: dict[str, str]
) -> None:
    answers = {"total": Said({"number": "7", "total": 84.5})}
    folder = tmp_path / "pipes"
    folder.mkdir()
    ledger = url.replace("//postgres@", f"//postgres:{words['PADDOCK_LEDGER']}@")
    assert ledger != url
    environ = {
        **{name: words[name] for name in OF_THE_PIPELINE},
        "PADDOCK_SMTP": f"smtp://me:{words['PADDOCK_SMTP']}@127.0.0.1:9",
        "PADDOCK_API_KEY": words["PADDOCK_API_KEY"],
        "PADDOCK_POOL_KEY": words["PADDOCK_POOL_KEY"],
        "PADDOCK_LEDGER": ledger,
        "PADDOCK_ALLOW": "run,tool,mcp,network,secrets",
    }
    up = UpFolder(folder, environ=environ)
    with clerk(answers) as model, watched_process_list() as seen:
        text = BILLS.replace("URL", model.url).replace("SERVER", str(MCP))
        text = text.replace("SEEN", str(tmp_path))
        up.write("bills/pipeline.yaml", text.replace("PYTHON", sys.executable))
        up.write("bills/tools.py", TOOLS)
        up.write("bills/inbox/a.html", "<p>Invoice 7, total 84.50</p>")
        home = tmp_path / "home"
        seed(home / "prefect")
        try:
            up.start()
            password = password_file(home).read_text().strip()
            token = (home / "review.token").read_text().strip()
            body = json.dumps({"n": 1}).encode()
            mac = hmac.new(words["HOOK_KEY"].encode(), body, hashlib.sha256).hexdigest()
            signed = {"X-Hub-Signature-256": f"sha256={mac}"}
            assert up.post("/bills", body, signed)[0] == 202
            up.until(lambda: seen.environs_of("sh", "; test"))  # it ends when it was seen
            (tmp_path / "command").touch()
            up.until(lambda: seen.environs_of("; : told"))
            (tmp_path / "notice").touch()
            assert up.process is not None
            (server,) = (
                child.pid for child in psutil.Process(up.process.pid).children()
                if "paddock.runner.daemon.prefect_process" in child.cmdline()
            )  # fmt: skip
            environ_of_server = Path(f"/proc/{server}/environ").read_bytes()
        finally:
            up.stop()
    refuse_in(seen, words, password, token)
    of_others = {
        "a document's reader": ("reader_process",),
        "a Python tool": ("function_worker",),
        "an MCP server": (str(MCP),),
        "a command": ("sh", "; test"),
        "a notification's command": ("; : told",),
        "a model": ("worker_main",),
    }
    its_own = {"an MCP server": words["TOOL_KEY"], "a command": words["RUN_KEY"]}
    for what, line in of_others.items():
        environs = seen.environs_of(*line)
        assert environs, f"{what} was not seen"
        for name, secret in words.items():
            if its_own.get(what) != secret:
                has = [environ for environ in environs if secret.encode() in environ]
                assert has == [], f"{what} has {name}"
    assert [name for name in words if words[name].encode() in environ_of_server] == []


@contextmanager
def registry() -> Iterator[tuple[str, list[str]]]:
    """Serve a registry that asks for a password and has no model.

    Yield its host and what it was given as `Authorization`.
    """
    given: list[str] = []

    def answer(request: http_server.Request) -> http_server.Answer:
        given.append(request.headers.get("Authorization", ""))
        status = 404 if given[-1] else 401
        return http_server.Answer(
            status=status, headers={"WWW-Authenticate": 'Basic realm="models"'}
        )

    with http_server.serving(answer) as server:
        yield server.host, given


def test_no_command_puts_a_secret_into_a_command_line(
    tmp_path: Path, url: str, words: dict[str, str], prefect_api: str
) -> None:
    key, home = words["PADDOCK_API_KEY"], tmp_path / "home"
    keys, auth = tmp_path / "keys", tmp_path / "auth.json"
    keys.write_text(f"{key} ann\n")
    keys.chmod(0o600)
    ledger = url.replace("//postgres@", f"//postgres:{words['PADDOCK_LEDGER']}@")
    environ = {"PADDOCK_API_KEY": key, "PADDOCK_HOME": str(home), "PADDOCK_LEDGER": ledger,
               "REGISTRY_AUTH_FILE": str(auth), "PREFECT_API_URL": prefect_api,
               "PREFECT_API_KEY": words["PADDOCK_POOL_KEY"]}  # fmt: skip
    (tmp_path / "pipeline.yaml").write_text(
        "steps: [{uses: files.write, with: {path: out/a, text: done}}]\n"
    )
    with watched_process_list() as seen, registry() as (host, given):
        login = base64.b64encode(f"me:{words['registry']}".encode()).decode()
        auth.write_text(json.dumps({"auths": {host: {"auth": login}}}))
        assert paddock("pull", f"http://{host}/x/y:z", "--insecure", environ=environ).status == 1
        assert f"Basic {login}" in given
        assert paddock("run", str(tmp_path), environ=environ).status == 0
        arguments = "--port", "0", "--api-keys", str(keys)
        with serving(*arguments, PADDOCK_HOME=str(home)) as (_, address):
            remote = {**environ, "PADDOCK_HOST": address}
            assert paddock("list", environ=remote).status == 0
            ended = paddock("chat", "smollm2:135m", "Hi", environ=remote)
            assert ended.status == 0, ended.err
    refuse_in(seen, words, login)
    models = seen.environs_of("worker_main")
    assert models
    assert not any(word.encode() in model for model in models for word in words.values())
