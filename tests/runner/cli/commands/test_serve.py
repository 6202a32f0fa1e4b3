"""`paddock serve`: a door that opens, is refused, or is taken."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runner.cli.commands.shell import PADDOCK, paddock, paddock_here
from tests.waiting import PATIENCE_S


@contextmanager
def serving(*arguments: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [PADDOCK, "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.match(r"Paddock serves at (\S+), models in ", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return str(answer.read().decode())


def test_it_serves_logs_and_ends_in_order(tmp_path: Path) -> None:
    with serving("--port", "0", PADDOCK_HOST="", PADDOCK_HOME=str(tmp_path)) as (process, url):
        assert get(f"{url}/") == "Ollama is running"
        near = {"PADDOCK_HOST": url, "PADDOCK_HOME": str(tmp_path)}
        assert paddock("ps", environ=near).out.split()[:2] == ["NAME", "ID"]
        listed = json.loads(paddock_here("list", "--json", environ=near).out)["models"]
        assert "all-minilm:latest" in {model["name"] for model in listed}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "GET /api/tags 200" in log
    assert log.endswith("Stopped.\n")


def test_a_run_beside_it_leaves_the_processor_to_its_models(tmp_path: Path) -> None:
    """Linux has a priority for each session as well."""
    (tmp_path / "p.yaml").write_text(
        "name: p\nreturns: steps.a.stdout\n"
        "steps: [{id: a, uses: run, cache: off, with: {command: [nice]}}]\n"
    )
    near = {"CI": "", "PADDOCK_HOST": "", "PADDOCK_HOME": str(tmp_path / "home")}
    command = ("run", str(tmp_path / "p.yaml"), "--allow", "run", "--force", "a")
    alone = paddock(*command, environ=near)
    with serving("--port", "0", **near):
        beside = paddock(*command, environ=near)
        own_models = [paddock(*command, flag, environ=near).out for flag in ("--local", "--exact")]
    own = os.nice(0)
    assert (alone.out, beside.out) == (f"{own}\n", f"{own + 10}\n"), alone.err
    assert own_models == [f"{own}\n"] * 2, "they would be as slow as the run"


def test_a_wide_bind_without_keys_is_one_line_to_copy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    refused = paddock_here("serve", "--host", "0.0.0.0:0", environ={"PADDOCK_HOME": str(home)})
    make = f"mkdir -p {home} && (umask 077; openssl rand -hex 24 >> {home}/api-keys)"
    line = f"{make} && paddock serve --host 0.0.0.0:0 --api-keys {home}/api-keys"
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        f"Anyone who reaches 0.0.0.0:0 could use this machine: there are no API keys.\n  {line}\n"
    )
    subprocess.run(["bash", "-c", make], check=True)
    assert (home / "api-keys").stat().st_mode & 0o777 == 0o600
    wide = ("--host", "0.0.0.0:0", "--api-keys", f"{home}/api-keys")
    with serving(*wide, PADDOCK_HOME=str(home)) as (process, url):
        assert process.stderr is not None
        notice = process.stderr.readline()
        assert re.fullmatch(
            r"It listens on 0\.0\.0\.0:\d+: anyone with a key may use it\.\n", notice
        )
        key = (home / "api-keys").read_text().strip()
        environ = {"PADDOCK_HOST": url, "PADDOCK_HOME": str(home)}
        without = paddock_here("list", environ=environ)
        assert (without.status, without.out) == (1, "")
        assert without.err.endswith("Set PADDOCK_API_KEY to one of the service's keys.\n")
        assert paddock_here("list", environ={**environ, "PADDOCK_API_KEY": key}).status == 0


def test_a_wide_bind_without_keys_can_be_asked_for_and_ctrl_c_ends_it_in_order(
    tmp_path: Path,
) -> None:
    wide = ("--host", "0.0.0.0:0", "--insecure")
    with serving(*wide, PADDOCK_HOME=str(tmp_path)) as (process, _):
        assert process.stderr is not None
        assert "ANYONE, WITHOUT A KEY, may use it." in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


_OLLAMA = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"Ollama is running" if self.path == "/" else b"404 page not found"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_port_that_ollama_holds_is_one_line_to_copy(tmp_path: Path) -> None:
    ollama = subprocess.Popen([sys.executable, "-c", _OLLAMA], stdout=subprocess.PIPE, text=True)
    assert ollama.stdout is not None
    try:
        port = int(ollama.stdout.readline())
        environ = {"PADDOCK_HOST": f"127.0.0.1:{port}", "PADDOCK_HOME": str(tmp_path)}
        refused = paddock_here("serve", environ=environ)
    finally:
        ollama.kill()
        ollama.wait()
        ollama.stdout.close()
    first, second = refused.err.splitlines()
    assert refused.status == 2
    assert re.fullmatch(rf"Port {port} is taken by Ollama \(.*process {ollama.pid}\)\.", first)
    other = re.fullmatch(r"  paddock serve --host 127\.0\.0\.1 --port (\d+)", second)
    assert other
    assert int(other[1]) > port


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--host", "192.0.2.1:0", "--insecure"), 1, "cannot listen on 192.0.2.1:0: "),
        (("--host", "a:b"), 2, "--host: 'a:b' has a port that is none.\n"),
        (("--rate", "fast"), 2, "--rate: 'fast' is not a rate.\n"),
    ],
)
def test_what_cannot_be_served_is_told(
    tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    refused = paddock_here("serve", *arguments, environ={"PADDOCK_HOME": str(tmp_path)})
    assert refused.status == status
    assert refused.err.startswith(words)
