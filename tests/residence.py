"""A state folder whose local service tests start by real runs, and end with the block."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from paddock.runner.daemon import daemon_client, daemon_files
from paddock.runner.daemon.daemon_files import DaemonError, DaemonInfo
from paddock.runner.daemon.prefect_auth import basic_auth_headers, own_auth_string
from paddock.runner.daemon.prefect_server import end_keeper, running_server
from tests.fakes import tiny
from tests.forked import Forked, ForkServer
from tests.waiting import PATIENCE_S, rest

CLI = "from paddock.runner.cli.application import main; main()"
PIPELINE = """\
name: ferries
models: {writer: {ref: ./noise.gguf, ctx: 1k}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 2
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: say
        uses: chat
        with: {model: writer, prompt: "Shorter: {{ steps.text.text }}", params: {max_tokens: 8}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
"""


def own_headers(state_dir: Path) -> dict[str, str]:
    """Return the HTTP headers that our own server needs."""
    return basic_auth_headers(own_auth_string(state_dir))


@dataclass
class Home:
    """A folder with a pipeline and a state folder."""

    root: Path
    forks: ForkServer | None = None
    """What commands are forked from; without it, each is a Python of its own."""
    n_documents: int = 0

    @property
    def state_dir(self) -> Path:
        return self.root / "home"

    @property
    def model(self) -> str:
        """Return the model's name: some kilobytes, and of no matter what it says."""
        return str(self.root / "noise.gguf")

    def more(self, n: int) -> None:
        """Lay more documents into the inbox."""
        for number in range(self.n_documents, self.n_documents + n):
            file = self.root / f"inbox/{number}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"Document {number} tells of the ferry and the weather at sea.\n")
        self.n_documents += n

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a person's terminal: no CI, no Prefect of their own."""
        kept = {k: v for k, v in os.environ.items() if k not in ("CI", "PREFECT_API_URL")}
        return {**kept, "PADDOCK_HOME": str(self.state_dir), "PADDOCK_NUM_THREAD": "1", **more}

    def started(self, *arguments: str, **environ: str) -> subprocess.Popen[str] | Forked:
        if self.forks:
            return self.forks.paddock(*arguments, environ=self.environ(**environ), cwd=self.root)
        return subprocess.Popen(
            # As the script `paddock`: without the current folder among the places of modules.
            [sys.executable, "-P", "-c", CLI, *arguments], cwd=self.root,
            env=self.environ(**environ), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def paddock(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return ended(self.started(*arguments, **environ))

    def run(self, *arguments: str, **environ: str) -> tuple[dict[str, Any], str]:
        done = self.paddock("run", "--json", "pipeline.yaml", *arguments, **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    def services(self) -> list[DaemonInfo]:
        return daemon_files.running_daemons(self.state_dir)

    def told(self) -> dict[str, Any]:
        """Return what the one service tells."""
        (residence,) = self.services()
        return daemon_client.ask_daemon(residence)

    def process(self) -> psutil.Process:
        (residence,) = self.services()
        return psutil.Process(residence.pid)

    @contextmanager
    def standing_model(self) -> Iterator[None]:
        """Hold the loaded model's worker still, so that no run ends meanwhile."""
        service = self.process()
        (worker,) = (
            process for process in service.children() if "worker_main" in str(process.cmdline())
        )
        worker.suspend()
        try:
            yield
        finally:
            worker.resume()  # also where its service is gone, so that it ends

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        url = running_server(self.state_dir)
        data = json.dumps(body or {}).encode()
        head = {"Content-Type": "application/json", **own_headers(self.state_dir)}
        request = urllib.request.Request(f"{url}/{path}", data, head)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())

    def tasks(self) -> list[dict[str, Any]]:
        return list(self.api("task_runs/filter", {"limit": 200}))

    def shown(self, run: str) -> str:
        """Return the state that Prefect shows of a run; empty: it shows none."""
        flow_runs = self.api("flow_runs/filter", {"limit": 200})
        return next((str(one["state_name"]) for one in flow_runs if one["name"] == run), "")

    def end(self) -> None:
        """Kill the services, a server that `--prefect` started, and all below them."""
        host = end_keeper(self.state_dir)
        pids = [service.pid for service in self.services()]
        for pid in [*pids, *([] if host is None else [host])]:
            with suppress(psutil.Error):
                service = psutil.Process(pid)
                for process in (*service.children(recursive=True), service):
                    with suppress(psutil.Error):
                        process.kill()


@contextmanager
def at_home(root: Path, forks: ForkServer | None = None) -> Iterator[Home]:
    """Yield a home whose services end with the block."""
    (root / "pipeline.yaml").write_text(PIPELINE)
    home = Home(root, forks)
    tiny.llama(Path(home.model))
    try:
        yield home
    finally:
        home.end()


def ended(
    process: subprocess.Popen[str] | Forked, within_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=within_s)
    assert process.returncode is not None
    return subprocess.CompletedProcess("paddock", process.returncode, out, err)


def until(is_so: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        with suppress(DaemonError, OSError, ValueError):
            if is_so():
                return
        assert began < deadline, "it did not come to that"
        rest(began)
