"""Proof: three machines on one folder, one of them killed with its children; all done, none twice.

    python -m tests.cluster.three_workers [--documents N] [--workers N] [--mishap stop]

Machines are processes with state folders of their own. Real PostgreSQL, real Prefect server on it,
`paddock cluster init`, `paddock worker`, `paddock cluster run`; the models are a server that all of
them ask by URL, and that counts what it was asked.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import httpx
import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from paddock.runner.daemon.prefect_server import TUNED
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.workers.flow_order import entrypoint
from tests.benchmarks.processes import free_port
from tests.forked import Forked, ForkServer
from tests.postgres import Postgres, postgres
from tests.prefect_server import prefect_client
from tests.waiting import rest

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 240.0
DEAD_AFTER_S = 15.0  # a busy machine's heartbeat may be late, and all that it does done twice
RECORDED_S = 2.0
NAMESPACE = ("unshare", *(() if os.geteuid() == 0 else ("-r",)), "-m")
"""Runs a command with mounts of its own."""
AUTH = ("team", "of Prefect's API")
PASSWORD = ":".join(AUTH)

# What a machine imports; a process that is forked has it.
IMPORTS = (
    "paddock.runner.workers.cluster_machine", "paddock.runner.workers.delegation",
    "paddock.runner.workers.pipeline_flow", "paddock.runner.workers.prefect_worker",
    "paddock.runner.workers.queued_run",
)  # fmt: skip
Process = subprocess.Popen[bytes] | Forked

REFUSED = "Refused: It was not put into the queue by"

PIPELINE = """\
name: letters
models:
  writer: {ref: m, pool: {url: "URL"}}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    max_parallel: 4
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - id: report
    uses: files.write
    with: {path: out/ALL.md, text: "{{ steps.each.results | length }} letters"}
returns: {counts: steps.each.counts}
"""


@dataclass
class Counting:
    """A server of models that answers each document after a while and counts them."""

    delay_s: float
    asked: list[str] = field(default_factory=list)
    under_way: dict[str, float] = field(default_factory=dict)
    """What is being answered, or was a moment ago: text → when that is over."""
    url: str = ""

    def in_flight(self) -> set[str]:
        """Return the documents whose answers may not be in the ledger yet."""
        return {text for text, over in self.under_way.items() if over > time.monotonic()}

    async def models(self, request: Request) -> Response:
        own = {"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 4000}
        return JSONResponse({"object": "list", "data": [own]})

    async def tokenize(self, request: Request) -> Response:
        body = await request.json()
        text = body.get("prompt") or " ".join(one["content"] for one in body["messages"])
        return JSONResponse({"count": len(text.split()), "max_model_len": 4000})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        text = str(body["messages"][-1]["content"])
        self.asked.append(text)
        self.under_way[text] = time.monotonic() + self.delay_s + RECORDED_S
        await asyncio.sleep(self.delay_s)
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 2}
        parts: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": f"About: {text}"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        lines = [f"data: {json.dumps(part)}\n\n" for part in parts] + ["data: [DONE]\n\n"]
        return StreamingResponse(iter(lines), media_type="text/event-stream")

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer in a thread."""
        app = Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/tokenize", self.tokenize, methods=["POST"]),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )
        door = socket.socket(proto=socket.IPPROTO_TCP)  # else each answer waits 40 ms (Nagle)
        door.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{door.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([door],), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(10)
            door.close()


@dataclass
class Cluster:
    """The servers, the shared folder and the machines."""

    home: Path
    shared: Path
    environment: dict[str, str]
    forks: ForkServer | None = None
    """Starts what needs no mounts, in a tenth of the time."""
    machines: dict[str, Process] = field(default_factory=dict)

    def paddock(
        self,
        *arguments: str,
        state: str = "laptop",
        mounts: Mapping[Path, Path] = MappingProxyType({}),
        **environ: str,
    ) -> Process:
        """Start a command as on a machine of this name; `mounts`: folder → what lies there."""
        own = {"PADDOCK_HOME": str(self.home / state), **environ}
        if self.forks and not mounts:
            return self.forks.paddock(
                *arguments, imports=IMPORTS, environ=self.environment | own, cwd=self.shared,
                log=self.home / f"{state}.log",
            )  # fmt: skip
        command = [str(Path(sys.executable).with_name("paddock")), *arguments]
        if mounts:
            binds = [f"mount --bind '{what}' '{at}'" for at, what in mounts.items()]
            here = f"cd '{self.shared}'"  # not the folder below the mount
            script = " && ".join([*binds, here, 'exec "$@"'])
            command = [*NAMESPACE, "sh", "-c", script, "sh", *command]
        with (self.home / f"{state}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.shared, env=self.environment | own,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def join(
        self,
        name: str,
        *more: str,
        mounts: Mapping[Path, Path] = MappingProxyType({}),
        **environ: str,
    ) -> None:
        """Start a machine's worker."""
        arguments = ("worker", "--name", name, *(more or ("--max-runs", "1")))
        self.machines[name] = self.paddock(*arguments, state=name, mounts=mounts, **environ)

    def kill(self, name: str) -> int:
        """Kill a machine: all of its processes at once; tells how many."""
        return kill_all(self.machines.pop(name))

    def stop(self, name: str) -> int:
        """Ask a machine to end; tells its status."""
        machine = self.machines.pop(name)
        machine.terminate()
        return machine.wait(WAIT_S)

    def log(self, name: str) -> str:
        """Return what a machine said."""
        return (self.home / f"{name}.log").read_text("utf-8", "replace")


def kill_all(process: Process) -> int:
    """Kill a process and all below it."""
    found = [psutil.Process(process.pid)]
    found += found[0].children(recursive=True)
    for one in found:
        one.suspend()  # so that no one sees another die first
    for one in found:
        one.kill()
    process.wait(30)
    return len(found)


@dataclass
class Servers:
    """PostgreSQL and a Prefect server on it, which several clusters may share."""

    database: Postgres
    api_url: str
    n_clusters: int = 0
    forks: ForkServer | None = None


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both servers."""
    with (
        tempfile.TemporaryDirectory(prefix="paddock-servers-") as home,
        postgres() as database,
        prefect(Path(home), database) as api_url,
    ):
        yield Servers(database, api_url)


@contextmanager
def cluster(
    n_documents: int, models: str, dead_after_s: float = 6.0, shared_servers: Servers | None = None
) -> Iterator[Cluster]:
    """Make a folder, and servers unless some are shared.

    `paddock cluster init` says that all is there. Each cluster has a database and a work pool of
    its own.
    """
    home = Path(tempfile.mkdtemp(prefix="paddock-cluster-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        found = shared_servers or stack.enter_context(servers())
        found.n_clusters += 1
        name = f"paddock{found.n_clusters}"
        shared = home / "shared"
        (shared / "inbox").mkdir(parents=True)
        (shared / "pipeline.yaml").write_text(PIPELINE.replace("URL", models))
        for number in range(n_documents):
            (shared / "inbox" / f"{number:04}.txt").write_text(f"Letter {number:04}.")
        environment = os.environ | {
            "PREFECT_API_URL": found.api_url,
            "PREFECT_API_AUTH_STRING": PASSWORD,
            "PADDOCK_LEDGER": found.database.make(name),
            "PADDOCK_WORK_POOL": name,
            "PADDOCK_ALLOW": "network",
            "PADDOCK_DEAD_AFTER": f"{dead_after_s:g}s",
        }
        made = Cluster(home, shared, environment, found.forks)
        stack.callback(_end, made)
        done = made.paddock("cluster", "init", str(shared))
        if done.wait(WAIT_S) != 0:
            raise RuntimeError(made.log("laptop"))
        yield made


def _end(made: Cluster) -> None:
    for name in list(made.machines):
        made.kill(name)


@contextmanager
def prefect(home: Path, database: Postgres) -> Iterator[str]:
    """Start a Prefect server on PostgreSQL."""
    port = free_port()
    url = database.make("prefect").replace("postgresql://", "postgresql+asyncpg://")
    environment = os.environ | TUNED | {
        "PREFECT_HOME": str(home / "prefect"), "PREFECT_API_DATABASE_CONNECTION_URL": url,
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
    }  # fmt: skip
    with (home / "prefect.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    api_url = f"http://127.0.0.1:{port}/api"
    try:
        until(lambda: _is_well(api_url), "Prefect's server", home / "prefect.log")
        yield api_url
    finally:
        kill_all(server)


def _is_well(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def until(holds: Callable[[], bool], what: str, log: Path | None = None) -> None:
    """Wait for something, in bounded time."""
    deadline = (began := time.monotonic()) + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: {log.read_text('utf-8', 'replace') if log else ''}")
        rest(began)
        began = time.monotonic()


@dataclass
class Proof:
    """What came of it."""

    n_documents: int
    n_done: int
    n_calls: int
    n_twice: int
    """Documents that were asked about more than once."""
    n_in_flight: int
    """Documents that the killed machine was asking about at that moment."""
    by_machine: dict[str, int]
    n_killed: int
    status: int
    seconds: float
    wrong: list[str]

    def as_text(self) -> str:
        """Lay it out."""
        rows = {
            "documents": self.n_documents,
            "done": self.n_done,
            "answers asked for": self.n_calls,
            "asked for twice": self.n_twice,
            "of those in flight at the kill": self.n_in_flight,
            "processes killed with the machine": self.n_killed,
            "status of the job": self.status,
            "seconds": round(self.seconds, 1),
            **{f"done by {name}": n for name, n in sorted(self.by_machine.items())},
        }
        return "\n".join(f"{name:<36}{value:>8}" for name, value in rows.items())


Mishap = Literal["kill", "stop", "none"]


def prove(
    n_documents: int,
    n_workers: int,
    mishap: Mishap,
    *,
    delay_s: float = 0.5,
    shared_servers: Servers | None = None,
) -> Proof:
    """Do the whole of it; one machine is killed or asked to end in the middle, and replaced."""
    models = Counting(delay_s)
    with models.serving(), cluster(n_documents, models.url, DEAD_AFTER_S, shared_servers) as made:
        names = [f"machine{number}" for number in range(1, n_workers + 1)]
        for name in names:
            made.join(name)
        began = time.monotonic()
        job = made.paddock("cluster", "run", "pipeline.yaml", "--shares", str(n_workers))
        n_killed, in_flight = 0, set[str]()
        if mishap != "none":
            # Not before it has done some of the work, and never when all of it is done.
            until(
                lambda: _n_at_work(made) >= n_workers or len(models.asked) > n_documents // 2,
                "all machines at work",
            )
            if mishap == "kill":
                n_killed = made.kill(_busiest(made))
                in_flight = set(models.asked) - _recorded(made)
            else:  # what it had begun it has finished
                made.stop(_busiest(made))
                made.join("another")
        status = job.wait(WAIT_S)
        seconds = time.monotonic() - began
        proof = _proof(made, models, n_documents, n_killed, in_flight, status, seconds)
        proof.wrong.extend(carried_out_for_strangers(made))
        return proof


def carried_out_for_strangers(made: Cluster) -> list[str]:
    """Ask for runs as one who reaches Prefect's API; return what machines should not have done."""
    mark, code = made.home / "mark", made.home / "code.py"
    code.write_text(
        f"from prefect import flow\nopen({str(mark)!r}, 'w')\n@flow\ndef mine(): pass\n"
    )
    wishes: dict[str, dict[str, Any]] = {
        "a command": {"job_variables": {"command": f"touch {mark}"}},
        "code": {"entrypoint": f"{code}:mine"},
        "a path": {"parameters": {"Paddock": {"path": str(made.shared / "pipeline.yaml")}}},
        "no parameters": {},
        "a step before": {
            "pull_steps": [
                {"prefect.deployments.steps.run_shell_script": {"script": f"touch {mark}"}}
            ]
        },
    }
    with prefect_client(made.environment["PREFECT_API_URL"], AUTH) as api:

        def made_by(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return dict(api.post(path, json=body).raise_for_status().json())

        flow = made_by("/flows/", {"name": "letters"})["id"]
        runs: dict[str, str] = {}
        for name, wish in wishes.items():
            pool = made.environment["PADDOCK_WORK_POOL"]
            about = {"name": name, "flow_id": flow, "work_pool_name": pool}
            deployment = made_by(
                "/deployments/",
                about | {"entrypoint": entrypoint(str(made.shared / "pipeline.yaml"))} | wish,
            )["id"]
            run = made_by(
                f"/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}}
            )
            runs[name] = run["id"]

        def state(run: str) -> dict[str, Any]:
            return dict(api.get(f"/flow_runs/{run}").raise_for_status().json()["state"])

        def is_over(run: str) -> bool:
            return state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        until(lambda: all(map(is_over, runs.values())), "the end of strangers' runs")
        said = {
            name: f"{state(run)['name']}: {state(run)['message']}" for name, run in runs.items()
        }
    wrong = [f"{name}: {words}" for name, words in said.items() if REFUSED not in words]
    return [*wrong, *(["a stranger's code ran"] if mark.exists() else [])]


def _busiest(made: Cluster) -> str:
    """Name the machine with most processes: one that carries out a run."""

    def n_processes(name: str) -> int:
        return len(psutil.Process(made.machines[name].pid).children(recursive=True))

    return max(made.machines, key=n_processes)


def _n_at_work(made: Cluster) -> int:
    """Count the participants that have recorded something."""
    with Ledger(made.shared / ".paddock", is_readonly=True, url=_url(made)) as ledger:
        return len(
            {run.run for run in RunStore(ledger).runs() if RunStore(ledger).items_of(run.run)}
        )


def _proof(
    made: Cluster, models: Counting, n_documents: int, n_killed: int, in_flight: set[str],
    status: int, seconds: float,
) -> Proof:  # fmt: skip
    out = made.shared / "out"
    texts = {path.name: path.read_text() for path in out.glob("*.txt")} if out.is_dir() else {}
    wrong = [
        f"{number:04}.txt"
        for number in range(n_documents)
        if texts.get(f"{number:04}.txt") != f"About: Letter {number:04}."
    ]
    twice = {text for text, n in Counter(models.asked).items() if n > 1}
    with Ledger(made.shared / ".paddock", is_readonly=True, url=_url(made)) as ledger:
        by_machine = {
            run.run: len(RunStore(ledger).items_of(run.run)) for run in RunStore(ledger).runs()
        }
    left = [path.name for path in made.shared.rglob("*.paddock-tmp*")]
    if status != 0:
        wrong.append(made.log("laptop")[-3000:])
    return Proof(
        n_documents, len(texts), len(models.asked), len(twice), len(twice & in_flight),
        by_machine, n_killed, status, seconds, wrong + left,
    )  # fmt: skip


def _recorded(made: Cluster) -> set[str]:
    """Return the documents that are done by the ledger."""
    with Ledger(made.shared / ".paddock", is_readonly=True, url=_url(made)) as ledger:
        keys = {
            item.entry.key
            for run in RunStore(ledger).runs()
            for item in RunStore(ledger).items_of(run.run)
        }
    return {f"Letter {key.removesuffix('.txt')}." for key in keys}


def _url(made: Cluster) -> str:
    return made.environment["PADDOCK_LEDGER"]


def main() -> int:
    """Prove it, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--mishap", choices=("kill", "stop", "none"), default="kill")
    given = parser.parse_args()
    proof = prove(given.documents, given.workers, given.mishap)
    print(proof.as_text())
    for wrong in proof.wrong:
        print("wrong:", wrong)
    is_proved = not proof.wrong and proof.n_twice == proof.n_in_flight
    print("proved" if is_proved else "NOT proved")
    return 0 if is_proved else 1


if __name__ == "__main__":
    sys.exit(main())
