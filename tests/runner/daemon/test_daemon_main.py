"""The local service as people meet it: started by a run, shared by the next, gone by itself."""

import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import psutil
import pytest

from paddock.runner.daemon.service_client import client_at_path
from tests.fakes.foreign_modules import add_foreign_modules
from tests.forked import ForkServer
from tests.prefect_server import seed
from tests.residence import Home, at_home, ended, until
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def shared_home(
    tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer
) -> Iterator[Home]:
    """Yield a home whose service the first run started."""
    umask = os.umask(0)  # a careless one: what is the owner's alone may not depend on it
    with at_home(tmp_path_factory.mktemp("residence")) as home:
        add_foreign_modules(home.root)
        home.more(2)
        _, output = home.run()
        os.umask(umask)
        assert output.count("Started the local service") == 1
        home.forks = fork_server
        yield home


@pytest.fixture
def served_home(shared_home: Home) -> Home:
    """Return the home with a service that runs: an earlier test may have stopped it."""
    if not shared_home.services():
        shared_home.more(1)
        shared_home.run()
    return shared_home


@pytest.fixture
def home(served_home: Home) -> Home:
    return served_home


def is_busy(home: Home) -> bool:
    return any(model["running"] + model["waiting"] for model in home.told()["models"])


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or only its parent has yet to hear of its end."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def test_the_next_run_finds_service_and_model(home: Home) -> None:
    home.more(1)
    known, _ = home.run()
    home.more(2)
    before = home.told()["pid"]
    report, output = home.run()
    n_known = known["counts"]["fresh"] + known["counts"]["new"]
    assert {k: n for k, n in report["counts"].items() if n} == {"fresh": n_known, "new": 2}
    assert report["models"] == {home.model: {"loads": 0, "load_s": 0.0}}
    assert "Started" not in output
    assert home.told()["pid"] == before


def test_service_models_and_readers_import_nothing_from_the_folder(home: Home) -> None:
    assert (home.root / "socket.py").exists()
    assert not home.root.with_name(f"{home.root.name}-imported").exists()


def test_state_is_the_owners_alone_and_outputs_follow_the_umask(home: Home) -> None:
    modes: dict[Path, int] = {}
    for folder in (home.state_dir, home.root / ".paddock"):
        for where, _, names in os.walk(folder):
            for path in (Path(where), *(Path(where, name) for name in names)):
                with suppress(FileNotFoundError):  # a running service's files come and go
                    modes[path] = path.lstat().st_mode
    assert {"service.log", "ledger.sqlite"} <= {path.name for path in modes}
    shown = {str(path): oct(stat.S_IMODE(mode)) for path, mode in modes.items()}
    expected = {
        str(path): oct(0o700 if stat.S_ISDIR(mode) else 0o600) for path, mode in modes.items()
    }
    assert shown == expected
    assert (home.root / "out").stat().st_mode & 0o777 == 0o777
    assert (home.root / "out/0.txt").stat().st_mode & 0o777 == 0o666


def test_a_command_holds_it_until_it_has_its_answer(home: Home) -> None:
    (daemon,) = home.services()
    with client_at_path(daemon.socket) as client, client.held():
        for _ in range(10):
            assert home.told()["requests"] == 1
            time.sleep(0.05)
    until(lambda: home.told()["requests"] == 0)


def test_no_one_else_can_open_its_door(home: Home) -> None:
    (daemon,) = home.services()
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
    assert daemon.socket.parent.stat().st_mode & 0o777 == 0o700


def test_status_says_what_it_holds(home: Home) -> None:
    home.more(1)
    home.run()
    pid = home.told()["pid"]
    lines = home.paddock("status").stdout.splitlines()[1:]
    assert lines[0].startswith("The local service runs for ")
    assert lines[0].endswith(f"(process {pid}).")
    assert lines[1].startswith(f"- model {home.model}: ready, ")
    assert re.match("- idle; it ends in 1[45] min ", lines[2])
    status = json.loads(home.paddock("status", "--json").stdout)
    assert status["services"][0]["pid"] == pid


def test_its_models_are_met_by_ps_stop_and_embed_as_those_of_serve_are(home: Home) -> None:
    home.more(1)
    home.run()
    rows = home.paddock("ps").stdout.splitlines()[1:]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [(home.model, "background")]
    original = files("paddock.examples") / "models/all-minilm-l6-v2.gguf"
    (home.root / "vec.gguf").write_bytes(original.read_bytes())
    assert home.paddock("embed", "./vec.gguf", "ferry").stdout.startswith("[")

    def held() -> list[tuple[str, str]]:
        models = json.loads(home.paddock("ps", "--json").stdout)["models"]
        return sorted((model["name"], model["service"]) for model in models)

    file = str(home.root / "vec.gguf")
    assert held() == [(home.model, "background"), (file, "background")]
    done = home.paddock("stop", "vec.gguf", "all-minilm")
    assert (done.returncode, done.stderr) == (0, "'all-minilm' is not in memory.\n")
    assert held() == [(home.model, "background")]
    unknown = home.paddock("stop", "none-such")
    assert (unknown.returncode, unknown.stderr) == (1, "model 'none-such' not found\n")


def test_local_and_ci_run_without_it(home: Home) -> None:
    home.more(1)
    report, _ = home.run("--local")
    assert report["models"][home.model]["loads"] == 1
    home.more(1)
    report, _ = home.run(CI="true")
    assert report["models"][home.model]["loads"] == 1


def test_a_run_goes_on_when_the_service_is_killed(home: Home) -> None:
    home.more(16)
    before = home.process()
    until(lambda: not is_busy(home))  # with what an earlier test left: that would not be this run
    with home.standing_model():
        run = home.started("run", "--json", "pipeline.yaml")
        until(lambda: is_busy(home))
        os.kill(before.pid, signal.SIGKILL)
    done = ended(run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["new"] == 16
    assert "The local service went away; the run continues with another one." in done.stderr
    assert home.told()["pid"] != before.pid


def test_the_requests_of_a_run_that_is_killed_end(home: Home) -> None:
    n_before = home.n_documents
    home.more(4)
    with home.standing_model():
        run = home.started("run", "--json", "pipeline.yaml")
        until(lambda: is_busy(home))
        run.kill()
        run.communicate()
    until(lambda: not is_busy(home))
    until(lambda: home.told()["requests"] == 0)
    for number in range(n_before, home.n_documents):  # no other run has to do them
        (home.root / f"inbox/{number}.txt").unlink()
    home.n_documents = n_before


def test_stop_ends_it_and_all_below_it(served_home: Home) -> None:
    home = served_home
    service = home.process()
    below = service.children(recursive=True)
    done = home.paddock("service", "stop")
    assert (done.returncode, done.stdout) == (0, "Stopped.\n")
    until(lambda: all(map(has_ended, [service, *below])))
    assert home.paddock("service", "stop").stdout == "No local service runs.\n"


def test_two_first_runs_start_one_service_which_ends_by_itself(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    with at_home(tmp_path, fork_server) as home:
        seed(home.state_dir / "prefect")
        home.more(1)
        text = (tmp_path / "pipeline.yaml").read_text()
        (tmp_path / "other.yaml").write_text(text.replace("out/", "other/"))
        idle = {"PADDOCK_SERVICE_IDLE": "2"}
        runs = [home.started("run", name, **idle) for name in ("pipeline.yaml", "other.yaml")]
        until(home.services)
        service = home.process()
        done = [ended(run) for run in runs]
        assert [ended.returncode for ended in done] == [0, 0], done
        assert sum("Started the local service" in ended.stderr for ended in done) == 1
        service.wait(PATIENCE_S)  # Prefect's server may still start; it is shown both runs first
        assert home.services() == []


def test_a_service_that_cannot_start_is_told_and_done_without(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    with at_home(tmp_path, fork_server) as home:
        home.more(1)
        home.state_dir.mkdir()
        (home.state_dir / "residence").write_text("")
        report, output = home.run()
        assert report["counts"]["new"] == 1
        assert (
            f"{home.state_dir}/residence cannot be used for the local service: File exists."
        ) in output
        assert "The run continues without it." in output
