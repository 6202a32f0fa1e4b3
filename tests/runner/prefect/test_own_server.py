"""`paddock run --prefect` is a flow run on a server that it starts; other runs know no Prefect."""

import json
import os
import re
import signal
from collections.abc import Iterator

import psutil
import pytest

from paddock.runner.daemon.prefect_auth import password_file
from paddock.runner.daemon.prefect_server import running_server
from tests.forked import ForkServer
from tests.prefect_server import seed
from tests.residence import Home, at_home, until

SECRET = "tk-4711-geheim"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[Home]:
    with at_home(tmp_path_factory.mktemp("own"), fork_server) as home:
        seed(home.state_dir / "prefect")
        home.more(2)
        yield home


@pytest.fixture
def served(home: Home) -> Home:
    """A home whose Prefect server runs, and whose service has the model loaded."""
    if not (running_server(home.state_dir) and home.services()):
        home.more(1)
        home.run("--prefect")
    return home


def test_a_plain_run_starts_no_prefect_and_does_not_import_it(home: Home) -> None:
    alone = Home(home.root, None, home.n_documents)  # a Python of its own
    report, output = alone.run(PYTHONPROFILEIMPORTTIME="1")
    assert report["status"] == "completed"
    assert not re.search(r"\| +prefect$", output, re.MULTILINE)
    assert running_server(home.state_dir) == ""
    commands = [process.cmdline() for process in home.process().children(recursive=True)]
    assert not [command for command in commands if "paddock.runner" in str(command)]


def test_with_prefect_it_is_a_flow_run_with_its_tasks_and_a_page(home: Home) -> None:
    home.more(2)
    report, output = home.run("--prefect")
    page = running_server(home.state_dir).removesuffix("/api")
    assert f"Prefect shows this run at {page}; the password" in output
    assert str(password_file(home.state_dir)) in output
    assert home.shown(report["run"]) == "Completed"
    until(lambda: {"docs", "each"} < {task["name"] for task in home.tasks()})
    keys = {artefact["key"] for artefact in home.api("artifacts/filter", {"limit": 200})}
    assert "ferries-results" in keys


def test_new_quarantine_is_red_and_the_next_run_finds_the_same_server(served: Home) -> None:
    home, before = served, running_server(served.state_dir)
    (home.root / "inbox/empty.txt").write_text("")
    done = home.paddock("run", "--json", "--prefect", "pipeline.yaml")
    (home.root / "inbox/empty.txt").unlink()
    assert done.returncode == 3, done.stderr
    assert running_server(home.state_dir) == before
    run = json.loads(done.stdout)["run"]
    (shown,) = [one for one in home.api("flow_runs/filter", {}) if one["name"] == run]
    assert (shown["state_type"], shown["state_name"]) == ("FAILED", "Quarantined")


def test_a_run_goes_on_while_its_server_is_killed_and_comes_back(served: Home) -> None:
    home = served
    home.more(8)
    file = home.state_dir / "residence/prefect.server"
    server, url = json.loads(file.read_text())["pid"], running_server(home.state_dir)
    with home.standing_model():
        run = home.started("run", "--json", "--prefect", "pipeline.yaml")
        until(lambda: any(model["running"] + model["waiting"] for model in home.told()["models"]))
        os.kill(server, signal.SIGKILL)
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert json.loads(out)["counts"]["new"] == 8
    until(lambda: running_server(home.state_dir) == url)


def test_what_prefect_has_of_a_step_that_fails_has_no_secret(home: Home) -> None:
    (home.root / "secretive.yaml").write_text(
        "name: secretive\nsecrets: {token: {env: THE_TOKEN}}\nsteps:\n"
        "  - {id: top, uses: run, with: {command: [sh, -c, 'echo no $T >&2; exit 4'], "
        "env: {T: '{{ secrets.token }}'}}}\n"
    )
    allowed = ("--allow", "secrets", "--allow", "run")
    done = home.paddock("run", "--prefect", "secretive.yaml", *allowed, THE_TOKEN=SECRET)
    assert done.returncode == 1, done.stderr
    kinds = ("flow_runs", "task_runs", "artifacts", "logs")
    until(lambda: "ended with code 4" in json.dumps(home.api("task_runs/filter")))
    kept = "".join(json.dumps(home.api(f"{kind}/filter")) for kind in kinds)
    assert "no ***" in kept
    assert SECRET not in kept


def test_service_stop_ends_the_server_too(served: Home) -> None:
    home = served
    file = home.state_dir / "residence/prefect.server"
    host = psutil.Process(json.loads(file.read_text())["host"])
    assert home.paddock("service", "stop").stdout == "Stopped.\n"
    until(lambda: not host.is_running() or host.status() == psutil.STATUS_ZOMBIE)
    assert running_server(home.state_dir) == ""
