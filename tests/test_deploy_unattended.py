"""What `examples/deploy` holds for unattended runs and for several machines: read and judged.

No Docker engine and no systemd runs here: units are verified by systemd's own tool, compose is
read, and what both name must exist in Paddock, PostgreSQL's driver and Prefect.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.engine.settings import ServiceSettings
from paddock.runner.cli.application import GROUPS
from paddock.runner.daemon.prefect_server import TUNED

HOUSE = Path(__file__).resolve().parents[1]
DEPLOY = HOUSE / "examples" / "deploy"
UNITS = ("paddock-up.service", "paddock-worker.service")
VERIFY = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    VERIFY is None, reason="the units were NOT verified: systemd-analyze is missing"
)


def unit(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


# systemd


def systemd_said(verb: str, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([VERIFY or "", verb, *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@needs_systemd
@pytest.mark.parametrize("name", ["paddock.service", *UNITS])
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    there = sys.executable  # the command must exist where it is verified
    file.write_text(unit(name).replace("/opt/paddock/bin/paddock", there), "utf-8")
    status, _, errors = systemd_said("verify", "--man=no", str(file))
    assert (status, [line for line in errors.splitlines() if "paddock" in line]) == (0, [])


@needs_systemd
@pytest.mark.parametrize(
    ("name", "most"), [("paddock.service", 25), *((name, 30) for name in UNITS)]
)
def test_systemd_finds_little_to_fear_in_it(name: str, most: int) -> None:
    words = ("--offline=true", f"--threshold={most}", str(DEPLOY / name))
    status, out, errors = systemd_said("security", *words)
    if "Unknown" in errors or "unrecognized" in errors:
        pytest.skip(f"{name} was NOT judged: this systemd cannot do so offline")
    assert status == 0, out[-3000:] + errors


@pytest.mark.parametrize(
    ("name", "more_s"), [("paddock.service", 10), *((name, 20) for name in UNITS)]
)
def test_a_unit_waits_longer_than_a_stop_may_take(name: str, more_s: int) -> None:
    (stop_s,) = values(unit(name), "TimeoutStopSec")
    assert float(stop_s) > ServiceSettings().stop_timeout_s + more_s


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_s_command_exists(name: str) -> None:
    (command,) = values(unit(name), "ExecStart")
    program, verb, *_ = command.split()
    assert program == "/opt/paddock/bin/paddock"
    assert verb in {one for commands in GROUPS.values() for one in commands}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_may_write_where_its_pipelines_are_and_nowhere_else(name: str) -> None:
    text = unit(name)
    assert values(text, "ProtectSystem") == ["strict"]
    assert values(text, "ReadWritePaths") == values(text, "RequiresMountsFor") == ["/srv/pipelines"]
    assert values(text, "User") == ["paddock"]
    assert f"PADDOCK_HOME=/var/lib/{values(text, 'StateDirectory')[0]}" in values(
        text, "Environment"
    )


def test_up_is_watched_and_says_when_it_is_ready() -> None:
    text = unit("paddock-up.service")
    assert values(text, "Type") == ["notify"]
    assert float(values(text, "WatchdogSec")[0]) >= 60
    assert values(text, "Restart") == ["on-failure"]
    # A wrong command or setting: trying again changes nothing.
    assert values(text, "RestartPreventExitStatus") == ["2"]


def test_a_worker_has_its_password_from_a_file_that_must_be_there() -> None:
    text = unit("paddock-worker.service")
    assert "/etc/paddock/cluster" in values(text, "EnvironmentFile")
    assert "postgresql://" not in text


# compose.yaml and compose.cluster.yaml


def compose(file: str = "compose.cluster.yaml") -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((DEPLOY / file).read_text("utf-8"))
    return told


of_each_file = pytest.mark.parametrize("file", ["compose.yaml", "compose.cluster.yaml"])


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_one_file_serves_the_first_machine_and_the_others() -> None:
    profiles = {name: one["profiles"] for name, one in compose()["services"].items()}
    assert profiles == {
        "db": ["server"], "prefect": ["server"], "prepare": ["server"], "up": ["server"],
        "worker": ["worker"], "worker-gpu": ["worker-gpu"],
    }  # fmt: skip
    # What a profile starts must not need what another profile has.
    for one in compose()["services"].values():
        for other in one.get("depends_on", {}):
            assert service(other)["profiles"] == one["profiles"]


@of_each_file
def test_every_container_has_all_its_safeguards(file: str) -> None:
    for name, one in compose(file)["services"].items():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in one or name == "db"
        assert "max-size" in one["logging"]["options"]


def test_nothing_listens_beyond_the_machine_unless_asked() -> None:
    for one in compose()["services"].values():
        for port in one.get("ports", []):
            assert port.startswith(("${SERVER:-127.0.0.1}:", "127.0.0.1:"))


def test_the_password_is_asked_for_and_never_written_down() -> None:
    text = (DEPLOY / "compose.cluster.yaml").read_text("utf-8")
    for found in re.finditer(r"postgresql[^:]*://paddock:(\S+?)@|POSTGRES_PASSWORD: (\S+)", text):
        said = found.group(1) or found.group(2)
        assert said.startswith("${DB_PASSWORD:?"), found.group()


def test_prefects_server_asks_for_the_password_that_all_machines_have() -> None:
    asked = service("prefect")["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert asked.startswith("paddock:${PREFECT_PASSWORD:?")
    for name in ("prepare", "up", "worker", "worker-gpu"):
        assert service(name)["environment"]["PREFECT_API_AUTH_STRING"] == asked


def test_machines_share_one_ledger_one_server_and_one_folder() -> None:
    wanted = ("PREFECT_API_URL", "PADDOCK_LEDGER", "PADDOCK_WORK_POOL")
    users = [service(name) for name in ("prepare", "up", "worker", "worker-gpu")]
    for one in users:
        assert [one["environment"][name] for name in wanted] == [
            users[0]["environment"][name] for name in wanted
        ]
        assert one["volumes"][1] == "${PIPELINES:-./pipelines}:/srv/pipelines"
    # A state folder is one machine's own: socket, lock and models of one pool.
    assert {one["volumes"][0] for one in users} == {"up:/data", "worker:/data"}


@of_each_file
def test_every_secret_volume_and_file_that_compose_names_exists(file: str) -> None:
    told = compose(file)
    secrets = {name for one in told["services"].values() for name in one.get("secrets", [])}
    assert secrets == set(told.get("secrets", {}))
    named = {
        mount.partition(":")[0]
        for one in told["services"].values()
        for mount in one.get("volumes", [])
    }
    files = {name for name in named if name.startswith("./")}
    assert {name for name in named - files if "$" not in name} == set(told["volumes"])
    assert all((DEPLOY / file).is_file() for file in files)
    for one in told["services"].values():
        if "build" in one:
            context = (DEPLOY / one["build"]["context"]).resolve()
            assert (context / one["build"]["dockerfile"]).is_file()


def test_prefect_has_a_database_that_is_made() -> None:
    url = service("prefect")["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]
    made = re.findall(r"CREATE DATABASE (\w+)", (DEPLOY / "databases.sql").read_text("utf-8"))
    assert url.rpartition("/")[2] in made
    assert service("db")["healthcheck"]["test"][-1] in made


def test_prefect_knows_every_setting_that_compose_gives_it() -> None:
    names = [
        name for name in service("prefect")["environment"]
        if name.startswith("PREFECT_") and name != "PREFECT_HOME"
    ]  # fmt: skip
    ask = (
        "import sys; from prefect.settings import Settings\n"
        "from prefect.settings.legacy import _get_settings_fields\n"
        "known = _get_settings_fields(Settings)\n"
        "print([name for name in sys.argv[1:] if name not in known])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ask, *names], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_prefect_s_server_is_tuned_as_our_own_is() -> None:
    given = service("prefect")["environment"]
    # How seldom a loop looks suits one machine: with several, Prefect's server hands out the runs.
    ours = {
        name: value
        for name, value in TUNED.items()
        if name.startswith("PREFECT_SERVER_SERV") and not name.endswith("LOOP_SECONDS")
    }
    assert ours
    assert {name: given[name] for name in ours} == ours


def test_what_compose_runs_are_commands_of_paddock() -> None:
    known = {one for commands in GROUPS.values() for one in commands}
    said = {service(name)["command"][0] for name in ("prepare", "up", "worker", "worker-gpu")}
    assert said == {"cluster", "up", "worker"}
    assert said <= known


@pytest.mark.parametrize(("file", "more_s"), [("compose.yaml", 10), ("compose.cluster.yaml", 20)])
def test_what_computes_gets_more_time_to_stop_than_it_takes(file: str, more_s: int) -> None:
    services = compose(file)["services"]
    for name in services.keys() - {"db", "prefect", "prepare"}:
        grace_s = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > ServiceSettings().stop_timeout_s + more_s
