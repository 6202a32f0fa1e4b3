"""A `paddock up` in a process of its own, and pipelines that need no model."""

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from paddock.runner.daemon import daemon_files
from tests.forked import Forked, ForkServer
from tests.prefect_server import prefect_client
from tests.waiting import PATIENCE_S, rest

ROOT = Path(__file__).resolve().parents[3]
WATCH = "on: {watch: [{path: ./inbox, settle: 200ms, batch: 200ms}]}"
HOOK = "on: {webhook: [{path: /%s, secret: hush}]}"
CLI = "from paddock.runner.cli.application import main; main()"
STEP = '''
import asyncio, os
from pathlib import Path
from paddock.steps.base import Output, Params, Step

class WaitParams(Params):
    file: str
    mark: str

class WaitOutput(Output):
    text: str

class Wait(Step[WaitParams, WaitOutput]):
    """Notes that it was begun, and waits until a file is there."""
    params, output, version = WaitParams, WaitOutput, 1
    is_pure, roles = False, frozenset()
    def reads(self, params):
        return ()
    async def run(self, params, tools):
        with open(params.mark, "a") as mark:
            mark.write(f"{os.getpid()}\\n")
        while not Path(params.file).exists():
            await asyncio.sleep(0.02)
        return WaitOutput(text="done")
'''
NOTES = """\
{on}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - uses: files.write
        with: {{path: "out/{{{{ doc.relpath }}}}", text: "Seen: {{{{ steps.text.text }}}}"}}
"""
WAITS = """\
{on}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 1
    do:
      - {{id: wait, uses: wait, with: {{file: "{go}", mark: "{mark}"}}}}
      - uses: files.write
        with: {{path: "out/{{{{ doc.relpath }}}}", text: "{{{{ steps.wait.text }}}}"}}
"""
COMMANDS = """\
{on}
steps:
  - {{id: docs, uses: files.scan, with: {{root: ./inbox}}}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 1
    do:
      - {{id: text, uses: files.read, with: {{path: "{{{{ doc.path }}}}"}}}}
      - id: said
        uses: run
        with:
          command: [sh, -c, "echo $$ >> begun; until [ -e ../go ]; do sleep 0.05; done; echo done"]
      - uses: files.write
        with: {{path: "out/{{{{ doc.relpath }}}}", text: "{{{{ steps.said.stdout }}}}"}}
"""
# What `up` imports.
IMPORTS = ("paddock.runner.schedule.up", "paddock.runner.workers.ordered_run")
Answer = TypeVar("Answer")


def signed(body: bytes) -> dict[str, str]:
    """Return the headers of a call of `HOOK`."""
    mac = hmac.new(b"hush", body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={mac}"}


@dataclass
class UpFolder:
    """A folder of pipelines, and the `paddock up` that runs them."""

    folder: Path
    api: str = ""
    process: subprocess.Popen[bytes] | Forked | None = None
    environ: dict[str, str] = field(default_factory=dict)
    forks: ForkServer | None = None
    """What `up` is forked from; without it, `up` is a Python of its own, with its command line."""

    @property
    def log(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.log"

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notes(self, name: str, on: str) -> Path:
        """Write a pipeline that copies its inbox."""
        return self._pipeline(name, NOTES.format(on=on))

    def waits(self, name: str, on: str) -> Path:
        """Write a pipeline whose items wait until `go` is there, and leave marks."""
        go, mark = self.folder / name / "go", self.folder / name / "begun"
        return self._pipeline(name, WAITS.format(on=on, go=go, mark=mark))

    def commands(self, name: str, on: str) -> Path:
        """Write a pipeline whose commands leave marks, and wait until `go` is there."""
        return self._pipeline(name, COMMANDS.format(on=on))

    def _pipeline(self, name: str, text: str) -> Path:
        return self.write(f"{name}/pipeline.yaml", f"name: {name}\n{text}")

    def marks(self, name: str) -> list[int]:
        """Return the processes that began an item, or the commands that were, in order."""
        file = self.folder / name / "begun"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def add_plugin(self) -> Path:
        """Write a distribution with the step `wait`; return its place."""
        plugin = self.folder.parent / "plugin"
        facts = plugin / "wait_step-1.0.dist-info"
        facts.mkdir(parents=True, exist_ok=True)
        (plugin / "wait_step.py").write_text(STEP)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: wait-step\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text("[paddock.steps]\nwait = wait_step:Wait\n")
        return plugin

    def start(self, *options: str) -> None:
        environ = {name: value for name, value in os.environ.items() if name != "CI"}
        path = (str(self.add_plugin()), environ.get("PYTHONPATH"))
        environ |= {
            "PADDOCK_HOME": str(self.folder.parent / "home"),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PREFECT_API_URL": self.api,
            **self.environ,
        }
        n_before = self.log_text().count("Paddock serves")
        words = ["up", str(self.folder), "--listen", "127.0.0.1:0", *options]
        if self.forks:
            self.process = self.forks.paddock(
                *words, imports=IMPORTS, environ=environ, log=self.log
            )
        else:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", CLI, *words],
                    cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
        # A Prefect server of its own takes 12 s on a machine that does nothing else.
        self.until(lambda: self.log_text().count("Paddock serves") > n_before)

    def signal(self, number: signal.Signals) -> int:
        """Send `paddock up` a signal, and give its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def reload(self) -> None:
        """Have a running `paddock up` look at its folders at once, not after two seconds."""
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def serves(self, *names: str) -> None:
        """Have a running `paddock up` look at its folders, and wait until it serves these."""
        self.reload()
        self.until(lambda: set(names) <= {pipeline["name"] for pipeline in self.get()["pipelines"]})

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for daemon in daemon_files.running_daemons(self.folder.parent / "home"):
            os.kill(daemon.pid, signal.SIGTERM)

    def until(self, is_so: Callable[[], Answer], within_s: float = PATIENCE_S) -> Answer:
        """Wait until something is so."""
        deadline = time.monotonic() + within_s
        while (began := time.monotonic()) < deadline:
            if answer := is_so():
                return answer
            assert self.process is None or self.process.poll() is None, self.log_text()
            rest(began)
        raise AssertionError(self.log_text())

    @property
    def url(self) -> str:
        return str(re.findall(r"(http://[^/]+)/status", self.log_text())[-1])

    def get(self, path: str = "/status") -> Any:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Call a webhook."""
        request = urllib.request.Request(
            self.url + path, body, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def call(self, name: str, **payload: Any) -> None:
        """Call a pipeline's webhook (`HOOK`)."""
        body = json.dumps(payload).encode()
        status, answer = self.post(f"/{name}", body, signed(body))
        assert (status, answer["is_known"], answer["end"]) == (202, False, None), answer

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """Return the flow runs of a pipeline, the oldest first."""
        body = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_ASC", "limit": 200}
        with prefect_client(self.api) as api:
            answer = api.post("/flow_runs/filter", json=body).raise_for_status()
        return sorted(answer.json(), key=lambda run: run["created"])

    def deployments(self, *names: str) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": [*names]}}}
        with prefect_client(self.api) as api:
            return list(api.post("/deployments/filter", json=body).raise_for_status().json())

    def output(self, name: str, document: str) -> str | None:
        file = self.folder / name / "out" / document
        return file.read_text() if file.exists() else None
