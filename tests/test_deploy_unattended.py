"""What `examples/deploy` holds for unattended runs: read and judged.

No Docker engine and no systemd runs here: units are verified by systemd's own tool, compose is
read, and what both name must exist in Paddock.
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

HOUSE = Path(__file__).resolve().parents[1]
DEPLOY = HOUSE / "examples" / "deploy"
UNITS = ("paddock-up.service",)
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


# compose.yaml


def compose() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return told


def test_every_container_has_all_its_safeguards() -> None:
    for one in compose()["services"].values():
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "cap_add" not in one
        assert "max-size" in one["logging"]["options"]


def test_every_secret_volume_and_file_that_compose_names_exists() -> None:
    told = compose()
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


def test_what_computes_gets_more_time_to_stop_than_it_takes() -> None:
    for one in compose()["services"].values():
        grace_s = float(one["stop_grace_period"].removesuffix("s"))
        assert grace_s > ServiceSettings().stop_timeout_s + 10
