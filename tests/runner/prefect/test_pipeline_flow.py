"""A pipeline as a Prefect flow: called, as a sub-flow, served and deployed, on a real server."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest
from prefect.types.entrypoint import EntrypointType

from paddock.engine.system.item_samples import ItemSample
from paddock.pipelines.errors import PipelineError
from paddock.runner import flow
from paddock.runner.api import plan
from paddock.runner.core.run_options import RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.settings import STATE_FOLDER
from tests.fakes.wires import cutting_wire
from tests.forked import Forked, ForkServer
from tests.prefect_server import prefect_client
from tests.runner.prefect.test_flow import ROOT
from tests.runner.schedule.up_process import UpFolder
from tests.waiting import until

INPUTS = """\
description: Notes of a folder
inputs:
  folder: {type: dir, default: ./inbox}
  n: {type: int, default: 2, min: 1, max: 9, description: How many}
  style: {type: enum, values: [plain, formal], default: plain}
  title: {type: str, required: true}
  token: {type: str, default: none, secret: true}
"""

NOTES = (
    INPUTS
    + """\
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ inputs.title }}: {{ steps.text.text }}"}
"""
)

STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"

CALLED = """
import asyncio, sys
from prefect import flow as prefect_flow
from paddock.runner import flow, run_async

notes = flow(sys.argv[1])

@prefect_flow(name="around")
async def around():
    report = await notes(title="Sub", token="s3cret")
    assert report.status == "completed", report
    report = await run_async(sys.argv[1], {"title": "By function"})
    assert report.status == "completed", report
    try:
        await notes(title="Bad", n=40)
    except Exception as error:
        assert "must be at most 9" in str(error), error
    else:
        raise AssertionError("40 is too many")

async def main():
    report = await notes(title="Called")
    assert report.status == "completed", report
    await around()

asyncio.run(main())
"""


NESTED = """
import asyncio, sys
from pathlib import Path
from prefect import flow as prefect_flow
from paddock.runner import flow

name = Path(sys.argv[1]).parent.name

@prefect_flow
async def middle():
    state = await flow(sys.argv[1])(title="Nested", return_state=True)
    print("the pipeline:", state.name, state.message, flush=True)

@prefect_flow(name=f"around {name}")
async def around():
    await middle()

asyncio.run(around())
"""

RETRIED = """
import asyncio, sys
from paddock.runner import PipelineRunFailed, flow

def began(flow, flow_run, state):
    print("begun:", flow.name, state.name)

notes = flow(sys.argv[1]).with_options(
    retries=1, retry_delay_seconds=int(sys.argv[2]), on_running=[began]
)
try:
    report = asyncio.run(notes(title="Tried"))
except PipelineRunFailed as error:
    print("failed:", error)
else:
    print("the report:", report.status)
"""


def _served() -> str:
    """Return the program that the guide shows."""
    _, _, rest = (ROOT / "examples" / "PREFECT.md").read_text().partition("```python\n# serve.py\n")
    return rest.partition("```")[0]


DEPLOYED = """
import sys
from paddock.runner import flow

flow(sys.argv[1]).deploy(
    name="pooled", work_pool_name=sys.argv[2], parameters={"title": "Pooled"},
    print_next_steps=False,
)
"""


def _notes(up: UpFolder) -> Path:
    name = f"notes-{uuid4().hex[:8]}"
    for document in ("a.txt", "b.txt"):
        up.write(f"{name}/inbox/{document}", document)
    return up.write(f"{name}/pipeline.yaml", f"name: {name}\n{NOTES}")


def _waiting_for_go(up: UpFolder, *documents: str) -> tuple[str, Path]:
    """Return the name of a pipeline whose items wait for a file `go`, and its own file."""
    name = f"slow-{uuid4().hex[:8]}"
    for document in documents:
        up.write(f"{name}/inbox/{document}", document)
    return name, up.waits(name, INPUTS)


def _written(folder: Path, text: str = NOTES, name: str = "notes") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "pipeline.yaml"
    file.write_text(f"name: {name}\n{text}")
    return file


def _environ(up: UpFolder) -> dict[str, str]:
    home = up.folder.parent / "home"
    path = os.pathsep.join([str(up.add_plugin()), os.environ.get("PYTHONPATH", "")])
    # Not what this process has set for Prefect: a user's own program has its own settings.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **own, "PREFECT_API_URL": up.api, "PREFECT_HOME": str(home), "PYTHONPATH": path,
        "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1",
    }  # fmt: skip


def _python(up: UpFolder, code: str, *arguments: object) -> str:
    assert up.forks
    process = up.forks.python(code, *arguments, environ=_environ(up))
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out + err


@contextmanager
def _running(
    up: UpFolder, *command: object, max_retries: int = 5
) -> Iterator[subprocess.Popen[bytes] | Forked]:
    """Run a program, or Python with the code and arguments after `-c`.

    `max_retries`: how often Prefect's client sends a request again, after 2, 4, 8 … seconds.
    """
    log, *folders = up.folder.parent / "process.log", *up.folder.iterdir()
    log.unlink(missing_ok=True)
    process: subprocess.Popen[bytes] | Forked
    if command[0] == "-c" and up.forks:
        code = str(command[1])
        process = up.forks.python(code, *command[2:], environ=_environ(up), cwd=folders[0], log=log)
    else:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*map(str, command)], cwd=folders[0], stdout=out, stderr=out,
                env={**_environ(up), "PREFECT_CLIENT_MAX_RETRIES": str(max_retries)},
            )  # fmt: skip
    try:
        yield process
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-6000:]}") from error
    finally:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()


class Prefect:
    """The server's API."""

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, path: str, body: Any) -> Any:
        with prefect_client(self._url) as api:
            answer = api.post(path, json=body)
        assert not answer.is_error, answer.text
        return answer.json() if answer.content else None

    def deployment(self, file: Path, name: str) -> Any:
        with prefect_client(self._url) as api:
            found = api.get(f"deployments/name/{file.parent.name}/{name}").json()
        return found.get("id")

    def read(self, path: str) -> Any:
        with prefect_client(self._url) as api:
            return api.get(path).raise_for_status().json()

    def patch(self, path: str, body: Any) -> None:
        with prefect_client(self._url) as api:
            api.patch(path, json=body).raise_for_status()

    def start(
        self, deployment: str, parameters: Mapping[str, Any] | None = None, **about: str
    ) -> str:
        body = {"parameters": dict(parameters or {}), "state": {"type": "SCHEDULED"}, **about}
        return str(self.post(f"deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, run: str) -> Any:
        return self.read(f"flow_runs/{run}")["state"]

    def set_state(self, run: str, kind: str, name: str, **details: Any) -> None:
        state = {"type": kind, "name": name, "state_details": details}
        self.post(f"flow_runs/{run}/set_state", {"state": state, "force": False})

    def logs(self, run: str) -> str:
        found = self.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
        return "\n".join(line["message"] for line in found)

    def runs(self, file: Path) -> list[Any]:
        name = {"flows": {"name": {"any_": [file.parent.name]}}}
        return list(self.post("flow_runs/filter", {**name, "sort": "START_TIME_ASC"}))


def test_a_flow_has_the_pipelines_name_and_its_inputs_as_typed_parameters(tmp_path: Path) -> None:
    notes = flow(_written(tmp_path, name="Notes & more"))
    assert (notes.name, notes.description) == ("Notes   more", "Notes of a folder")
    schema = notes.parameters.model_dump()
    assert schema["required"] == ["title"]
    found = schema["properties"]
    assert found["folder"]["default"] == str(tmp_path / "inbox")
    assert found["n"].items() >= {"type": "integer", "minimum": 1, "maximum": 9}.items()
    assert found["n"]["description"] == "How many"
    assert found["style"]["enum"] == ["plain", "formal"]
    assert found["token"]["anyOf"][0]["format"] == "password"
    assert found["token"]["default"] is None  # not the one of the YAML
    stored = notes.with_options(retries=2).serialize_parameters({"token": "s3cret", "n": 3})
    assert stored == {"token": "***", "n": 3}


def test_a_deployment_has_the_options_and_retries_of_its_flow(tmp_path: Path) -> None:
    from prefect.flows import load_flow_from_entrypoint

    options = RunOptions(
        force=frozenset({"a.b", "c?"}),
        retry_failed=True,
        wait_s=1.5,
        sample=ItemSample(3, 7, "x.y"),
    )
    file = _written(tmp_path / "v1.2")
    made = flow(file, options).with_options(retries=2, retry_delay_seconds=[1, 2.5])
    again: Any = load_flow_from_entrypoint(made.to_deployment("nightly").entrypoint or "")
    assert again.options == options
    assert (again.retries, again.retry_delay_seconds) == (2, [1, 2.5])
    third: Any = load_flow_from_entrypoint(again.to_deployment("b").entrypoint)
    assert third.options == options


@pytest.mark.parametrize("name", ["on_running", "on_failure", "on_cancellation"])
def test_hooks_that_no_worker_could_load_are_refused_by_a_deployment(
    tmp_path: Path, name: Any
) -> None:
    file = _written(tmp_path)
    made = flow(file).with_options(**{name: [print]})
    with pytest.raises(ValueError, match=f"a deployment cannot carry '{name}'"):
        made.to_deployment("nightly")
    as_deployed = {"entrypoint_type": EntrypointType.FILE_PATH, "job_variables": None}
    with pytest.raises(ValueError, match="cannot carry 'text'"):
        flow(file, RunOptions(text=file.read_text())).to_deployment("nightly", **as_deployed)
    named: Any = flow(tmp_path / "pipeline.yaml").with_options(flow_run_name=lambda: "of tonight")
    with pytest.raises(ValueError, match="a deployment cannot carry 'flow_run_name'"):
        named.to_deployment("nightly")
    as_served = {"entrypoint_type": EntrypointType.FILE_PATH}
    assert made.to_deployment("nightly", **as_served).entrypoint


def test_a_wrong_pipeline_is_refused_when_the_flow_is_made(tmp_path: Path) -> None:
    file = _written(tmp_path, "steps:\n  - {id: docs, uses: files.scan, wiht: {}}\n")
    with pytest.raises(PipelineError, match="wiht"):
        flow(file)


@pytest.mark.parametrize("name", ["class", "from", "wait_for", "return_state"])
def test_an_input_that_no_flow_can_have_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    file = _written(tmp_path, f"inputs: {{{name}: {{type: str, default: a}}}}\n{STEPS}")
    with pytest.raises(PipelineError, match=f"the input '{name}'"):
        flow(file)


@pytest.mark.parametrize(
    ("declared", "changed", "given", "seen"),
    [
        ("{type: int, default: 2}", "{type: int, default: 3}", 2, "2"),
        ("{type: int, default: 2}", "{type: int, default: 3}", 3, "3"),
        ("{type: bool, default: true}", "{type: bool, default: false}", True, "True"),
        ("{type: json, default: 1}", "{type: json, default: 1}", True, "True"),
        ("{type: json, default: [1]}", "{type: json, default: [1]}", [True], "[True]"),
    ],
)
async def test_a_run_has_the_parameters_that_prefect_shows(
    tmp_path: Path, declared: str, changed: str, given: Any, seen: str
) -> None:
    step = '{uses: files.write, with: {path: out, text: "n is {{ inputs.n }}"}}'
    text = f"inputs: {{n: %s}}\nsteps: [{step}]\n"
    notes = flow(_written(tmp_path, text % declared))
    _written(tmp_path, text % changed)
    state = await notes.fn(n=given)
    assert state.name == "Completed", state
    assert (tmp_path / "out").read_text() == f"n is {seen}"


async def test_a_flow_tries_quarantined_items_again_and_carries_out_no_order_that_is_not_verified(
    tmp_path: Path,
) -> None:
    file = _written(tmp_path, STEPS)
    state = await flow(file).fn(Paddock={"retry_failed": True})
    assert state.name == "Completed", state
    of_several_machines = {"path": "/p.yaml", "share": 2, "job": "calm-owl", "signature": "0"}
    for order in (of_several_machines, {"retry_failed": True, "n": 1}, "x"):
        with pytest.raises(PipelineError, match="This order was not verified"):
            await flow(file).fn(Paddock=order)


async def test_an_input_that_the_yaml_has_no_more_is_left_out(tmp_path: Path) -> None:
    notes = flow(_written(tmp_path, f"inputs: {{n: {{type: int, default: 2}}}}\n{STEPS}"))
    _written(tmp_path, STEPS)
    assert (await notes.fn(n=2)).name == "Completed"
    with pytest.raises(PipelineError, match="'n'"):
        await notes.fn(n=3)


def test_a_flow_is_called_and_is_a_sub_flow_with_the_ledgers_names(
    up: UpFolder, prefect_api: str
) -> None:
    file, prefect = _notes(up), Prefect(prefect_api)
    _python(up, CALLED, file)
    called, sub, by_function, bad = prefect.runs(file)
    states = [run["state_name"] for run in (called, sub, by_function, bad)]
    assert states == ["Completed", "Completed", "Completed", "Failed"]
    assert called["parent_task_run_id"] is None and sub["parent_task_run_id"]
    assert by_function["parent_task_run_id"]
    assert (called["parameters"]["title"], sub["parameters"]["title"]) == ("Called", "Sub")
    assert sub["parameters"]["token"] == "***"
    assert by_function["parameters"]["title"] == "By function"
    assert called["tags"] == ["paddock"]
    assert called["state"]["message"] == "2 done"
    with Ledger(file.parent / STATE_FOLDER, is_readonly=True) as ledger:
        names = {run.run for run in RunStore(ledger).runs()}
    assert {called["name"], sub["name"], by_function["name"]} == names

    own = {"flow_runs": {"id": {"any_": [called["id"]]}}}
    until(lambda: len(prefect.post("task_runs/filter", own)) == 3)
    tasks = {task["name"] for task in prefect.post("task_runs/filter", own)}
    assert tasks == {"docs", "each", "each: a.txt and 1 more"}
    until(lambda: "each: 2 items to do" in prefect.logs(called["id"]))
    artefacts = prefect.post("artifacts/filter", own)
    assert {artefact["type"] for artefact in artefacts} == {"progress", "table"}


def test_a_sub_flow_stops_when_a_parent_of_its_parent_is_cancelled_by_hand(
    up: UpFolder, prefect_api: str
) -> None:
    prefect, (name, file) = Prefect(prefect_api), _waiting_for_go(up, "a.txt", "b.txt")
    flow_named = {"flows": {"name": {"any_": [f"around {name}"]}}}
    log = up.folder.parent / "process.log"
    with _running(up, "-c", NESTED, file):
        until(lambda: len(up.marks(name)) == 1)
        (around,) = prefect.post("flow_runs/filter", flow_named)
        prefect.set_state(around["id"], "CANCELLING", "Cancelling")
        (run,) = prefect.runs(file)
        stops = "A parent flow run was cancelled in Prefect; items in"
        until(lambda: stops in prefect.logs(run["id"]))
        up.write(f"{name}/go", "")
        until(lambda: "the pipeline: " in log.read_text())
    left = "1 item is left; the same command goes on."
    words = f"A parent flow run was cancelled in Prefect. {left}"
    assert f"the pipeline: Cancelled {words}" in log.read_text()
    ended = prefect.state(run["id"])
    assert (ended["type"], ended["name"], ended["message"]) == ("CANCELLED", "Cancelled", words)
    assert up.output(name, "a.txt") == "done"  # it was in flight
    assert up.output(name, "b.txt") is None
    with Ledger(file.parent / STATE_FOLDER, is_readonly=True) as ledger:
        assert [kept.status for kept in RunStore(ledger).runs()] == ["interrupted"]


def test_a_failed_run_is_tried_again_and_the_last_try_shows_why(
    up: UpFolder, prefect_api: str
) -> None:
    file, prefect = _notes(up), Prefect(prefect_api)
    inbox, aside = file.parent / "inbox", file.parent / "aside"
    inbox.rename(aside)
    reason = f"the folder '{inbox}' does not exist"
    assert "failed: " in (output := _python(up, RETRIED, file, 0)) and reason in output
    assert output.count(f"begun: {file.parent.name} Running") == 2  # a hook is called at each try
    (failed,) = prefect.runs(file)
    assert (failed["state_name"], failed["run_count"]) == ("Failed", 2)
    assert reason in failed["state"]["message"]

    log = up.folder.parent / "process.log"
    with _running(up, "-c", RETRIED, file, 20):
        run = until(lambda: prefect.runs(file)[1:])[0]["id"]
        until(lambda: prefect.state(run)["name"] == "AwaitingRetry")
        aside.rename(inbox)
        until(lambda: "the report: completed" in log.read_text())
    retried = prefect.read(f"flow_runs/{run}")
    assert (retried["state_name"], retried["run_count"]) == ("Completed", 2)
    assert retried["state"]["message"] == "2 done"


def test_a_served_flow_has_a_schedule_and_is_run_cancelled_and_retried_from_prefect(
    up: UpFolder, prefect_api: str
) -> None:
    prefect, (name, file) = Prefect(prefect_api), _waiting_for_go(up, "a.txt", "b.txt", "c.txt")
    program, log = up.write(f"{name}/serve.py", _served()), up.folder.parent / "process.log"
    with _running(up, sys.executable, program):
        id_ = until(lambda: prefect.deployment(file, "nightly"))
        made = prefect.read(f"deployments/{id_}")
        assert made["schedules"][0]["schedule"]["cron"] == "0 6 * * 1-5"
        shown = made["parameter_openapi_schema"]["properties"]["n"]
        assert (shown["maximum"], shown["description"]) == (9, "How many")
        with pytest.raises(AssertionError, match="maximum"):
            prefect.start(id_, {"n": 40})

        run = prefect.start(id_, {"n": 3}, name="For the board")
        until(lambda: len(up.marks(name)) == 1)
        assert prefect.read(f"flow_runs/{run}")["parameters"] == {"title": "Nightly", "n": 3}
        prefect.set_state(run, "PAUSED", "Suspended", pause_reschedule=True)
        until(lambda: "It was suspended in Prefect" in prefect.logs(run))
        up.write(f"{name}/go", "")
        until(lambda: up.output(name, "a.txt"))
        assert prefect.state(run)["name"] == "Suspended"
        assert up.output(name, "c.txt") is None
        prefect.post(f"flow_runs/{run}/resume", {})
        until(lambda: prefect.state(run)["name"] == "Completed")
        assert up.output(name, "c.txt") == "done"
        assert prefect.read(f"flow_runs/{run}")["name"] == "For the board"
        assert "paddock" in prefect.read(f"flow_runs/{run}")["tags"]

        (file.parent / "go").unlink()
        up.write(f"{name}/inbox/d.txt", "d")
        run = prefect.start(id_)
        until(lambda: len(up.marks(name)) == 4)
        prefect.set_state(run, "CANCELLING", "Cancelling")
        until(lambda: prefect.state(run)["name"] == "Cancelled")
        # Prefect's own runner sets the state once more, and would undo an earlier retry.
        until(lambda: "Cancelled flow run" in log.read_text())
        assert "Cancelled('It was cancelled in Prefect; the same command" in log.read_text()
        assert up.output(name, "d.txt") is None
        up.write(f"{name}/go", "")
        prefect.set_state(run, "SCHEDULED", "AwaitingRetry")
        until(lambda: prefect.state(run)["name"] == "Completed")
        assert up.output(name, "d.txt") == "done"
        assert prefect.read(f"flow_runs/{run}")["run_count"] == 2

        # A wrong parameter is one sentence without a traceback
        prefect.patch(f"deployments/{id_}", {"enforce_parameter_schema": False})
        wrong = [prefect.start(id_, {"n": 40}), prefect.start(id_, {"title": None})]
        prefect.patch(f"deployments/{id_}", {"parameters": {}})
        wrong.append(prefect.start(id_))
        until(lambda: all("Finished in state" in prefect.logs(run) for run in wrong))
        no_title = "input 'title' has no value. Give it: `-i title=…`."
        too_large = "input 'n' must be at most 9, not '40'."
        for run, words in zip(wrong, (too_large, no_title, no_title), strict=True):
            state, logged = prefect.state(run), prefect.logs(run)
            assert state["type"] == "FAILED"
            assert words in state["message"] and "\n" not in state["message"]
            assert state["message"] in logged and "Traceback" not in logged

        timed = prefect.read(f"deployments/{id_}")["schedules"][0]
        prefect.patch(f"deployments/{id_}/schedules/{timed['id']}", {"active": False})
    with _running(up, sys.executable, program):  # it makes the schedule again
        until(lambda: prefect.read(f"deployments/{id_}")["schedules"][0]["id"] != timed["id"])
        assert not prefect.read(f"deployments/{id_}")["schedules"][0]["active"]


STORED = """
from prefect.blocks.system import Secret
from prefect.variables import Variable

Secret(value="tk-4711-geheim").save("api-key", overwrite=True)
Variable.set("pass_word", "pw-0815-geheim", overwrite=True)
Variable.set("number", 4711, overwrite=True)
"""
ALLOWED = """
import asyncio, sys
from paddock.runner import flow
from paddock.runner.core.run_options import RunOptions

allowed = flow(sys.argv[1], RunOptions(allow=frozenset(sys.argv[2:])))
print(asyncio.run(allowed(return_state=True)).message)
"""
WITH_SECRETS = """\
secrets: {token: {prefect: secret/api-key}, password: {prefect: variable/pass_word}}
steps:
  - id: each
    for_each: word in ["ferry"]
    do:
      - id: told
        uses: prompt
        with: {template: "{{ secrets.token }} {{ secrets.password }}"}
      - uses: files.write
        with: {path: "{{ word }}", text: "{{ steps.told.text | length }} {{ steps.told.text }}"}
"""


def test_secrets_come_from_blocks_and_variables_of_the_runs_server_and_are_redacted(
    up: UpFolder, prefect_api: str
) -> None:
    name, prefect = f"secretive-{uuid4().hex[:8]}", Prefect(prefect_api)
    file = up.write(f"{name}/pipeline.yaml", f"name: {name}\n{WITH_SECRETS}")
    _python(up, STORED)
    said = _python(up, ALLOWED, file)
    assert "read Prefect's Secret block 'api-key', which needs 'secrets'" in said
    assert "1 done" in _python(up, ALLOWED, file, "secrets")
    assert (file.parent / "ferry").read_text() == "29 tk-4711-geheim pw-0815-geheim"
    assert "1 fresh" in _python(up, ALLOWED, file, "secrets")
    planned = plan(file, None, RunOptions(allow=frozenset(["secrets"])))
    assert [item.state for item in planned.items] == ["fresh"], "which asks no server"
    for known, wrong, words in (
        ("secret/api-key", "secret/gone", "Secret block 'gone' does not exist"),
        ("variable/pass_word", "variable/number", "Variable 'number' is no text"),
    ):
        file.write_text(f"name: {name}\n{WITH_SECRETS.replace(known, wrong)}")
        said += _python(up, ALLOWED, file, "secrets")
        assert words in said
    assert "geheim" not in said + "".join(prefect.logs(run["id"]) for run in prefect.runs(file))


TIMED_OUT = """
import asyncio, sys
from paddock.runner import flow

async def main():
    limited = flow(sys.argv[1]).with_options(timeout_seconds=3, flow_run_name="Of the night")
    print("ended:", (await limited(title="Late", return_state=True)).name)

asyncio.run(main())
"""


def test_a_run_that_its_time_limit_ended_has_no_task_that_goes_on(
    up: UpFolder, prefect_api: str
) -> None:
    prefect, (_, file) = Prefect(prefect_api), _waiting_for_go(up, "a.txt")
    assert "ended: TimedOut" in _python(up, TIMED_OUT, file)
    (run,) = prefect.runs(file)
    assert run["name"] == "Of the night"
    own = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = until(lambda: prefect.post("task_runs/filter", own))
    assert "each" in {task["name"] for task in tasks}

    def goes_on() -> list[str]:
        found = prefect.post("task_runs/filter", own)
        return [task["name"] for task in found if task["state_type"] == "RUNNING"]

    until(lambda: not goes_on())


def test_a_run_whose_server_is_away_at_its_end_is_shown_completed_when_that_is_back(
    tmp_path: Path, fork_server: ForkServer, prefect_api: str
) -> None:
    up, server = UpFolder(tmp_path / "pipes", forks=fork_server), urlsplit(prefect_api).port or 0
    name, file = _waiting_for_go(up, "a.txt")
    log, worker = tmp_path / "process.log", Path(sys.executable).with_name("prefect")
    with ExitStack() as running:
        with cutting_wire(server) as wire:
            up.api = f"http://127.0.0.1:{wire.port}/api"
            prefect = Prefect(up.api)
            prefect.post("work_pools/", {"name": "away", "type": "process"})
            _python(up, DEPLOYED, file, "away")
            pool = ("--pool", "away")
            running.enter_context(_running(up, worker, "worker", "start", *pool, max_retries=1))
            id_ = until(lambda: prefect.deployment(file, "pooled"))
            run = prefect.start(id_, {"title": "Away"})
            until(lambda: up.marks(name))
        up.write(f"{name}/go", "")
        until(lambda: up.output(name, "a.txt"))
        until(lambda: "Prefect's server is away" in log.read_text() or "xited" in log.read_text())
        with cutting_wire(server, wire.port):
            until(lambda: prefect.state(run)["type"] not in ("RUNNING", "PENDING"))
            assert prefect.state(run)["name"] == "Completed", prefect.state(run)
