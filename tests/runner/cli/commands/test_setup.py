"""`paddock setup`: the units that it prints, and how they are installed; as systemd reads them."""

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddock.runner.cli.commands.setup import UNIT_NAME
from tests.runner.cli.commands.shell import Ended, paddock_here

COMMAND = f"{sys.executable} -P -m paddock.runner up"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/pipelines").mkdir(parents=True)
    return tmp_path / "home"


def setup(home: Path, *words: str, **environ: str) -> Ended:
    given = {"HOME": str(home), "XDG_CONFIG_HOME": "", "PADDOCK_HOME": "", **environ}
    return paddock_here("setup", *words, environ=given, cwd=home)


def files(home: Path) -> list[Path]:
    """Return the files below it, but for the hour that every command's first use leaves."""
    return [path for path in home.rglob("*") if path.is_file() and path.name != "since"]


# What is printed


@pytest.mark.parametrize(
    ("words", "environ", "lines", "others"),
    [
        (
            ["pipelines"],
            {},
            {
                f"ExecStart={COMMAND} @/pipelines",
                "WorkingDirectory=@/pipelines",
                "Type=notify",
                "WatchdogSec=120",
                "Restart=on-failure",
                "RestartPreventExitStatus=2",
                "TimeoutStopSec=60",
                "WantedBy=default.target",
            },
            ["User=", "Environment", "ReadWritePaths=", "ProtectHome="],
        ),
        ([], {}, {f"ExecStart={COMMAND} @", "WorkingDirectory=@"}, []),
        (
            ["pipelines", "."],
            {"PADDOCK_HOME": "~/state", "XDG_CONFIG_HOME": "config", "PADDOCK_API_KEYS": "keys"},
            {
                f"ExecStart={COMMAND} @/pipelines @",
                "Environment=PADDOCK_HOME=@/state",
                "Environment=XDG_CONFIG_HOME=@/config",
                "Environment=PADDOCK_API_KEYS=@/keys",
            },
            [],
        ),
        (
            ["pipelines"],
            {
                "PADDOCK_ALLOW": "run,tool",
                "PADDOCK_UP_HOST": "127.0.0.1:4711",
                "PADDOCK_STOP_TIMEOUT": "90",
                "PADDOCK_SMTP": "smtp://me:hush@mail.example.org",
            },
            {
                "Environment=PADDOCK_ALLOW=run,tool",
                "Environment=PADDOCK_UP_HOST=127.0.0.1:4711",
                "TimeoutStopSec=120",
            },
            ["Environment=PADDOCK_SMTP"],
        ),
        (
            ["pipelines", "--system", "--user", "nobody"],
            {"PADDOCK_HOME": "/elsewhere", "PADDOCK_ALLOW": "network"},
            {
                "User=nobody",
                "ReadWritePaths=@/pipelines",
                "RequiresMountsFor=@/pipelines",
                "EnvironmentFile=-/etc/paddock/environment",
                "Environment=PADDOCK_HOME=/var/lib/paddock",
                "Environment=PADDOCK_ALLOW=network",
                "ProtectSystem=strict",
                "WantedBy=multi-user.target",
            },
            ["Group=", "Environment=PADDOCK_HOME=/elsewhere"],
        ),
    ],
    ids=["own", "this folder", "places", "settings", "system"],
)
def test_the_unit_on_stdout(
    home: Path, words: list[str], environ: dict[str, str], lines: set[str], others: list[str]
) -> None:
    ended = setup(home, *words, **environ)
    assert ended.status == 0, ended.err
    written = ended.out.splitlines()
    assert {line.replace("@", str(home)) for line in lines} <= {*written}
    assert not [line for line in written if line.startswith(tuple(others))]
    assert files(home) == []


def test_the_two_commands_on_stderr_and_nothing_is_written(home: Path) -> None:
    (home / "a b").mkdir()
    units = home / ".config/systemd/user"
    first = setup(home, "a b")
    install = f"paddock setup '{home}/a b' > {units}/paddock-up.service"
    rest = (
        "  systemctl --user enable --now paddock-up\n"
        "Its log: journalctl --user -fu paddock-up\n"
        "It ends when you log out, unless you run: loginctl enable-linger\n"
    )
    assert first.err == f"Install it with:\n  mkdir -p {units} && {install}\n{rest}"
    assert files(home) == []
    units.mkdir(parents=True)
    assert setup(home, "a b").err == f"Install it with:\n  {install}\n{rest}"


def test_the_system_s_unit_is_installed_as_root_and_its_user_must_be_there(home: Path) -> None:
    ended = setup(home, "pipelines", "--system", "--user", "no-such-user")
    assert (ended.status, ended.err.replace("mkdir -p /etc/systemd/system && ", "")) == (
        0,
        "Install it with:\n"
        f"  paddock setup --system --user no-such-user {home}/pipelines | "
        "sudo tee /etc/systemd/system/paddock-up.service > /dev/null\n"
        "  sudo systemctl enable --now paddock-up\n"
        "Its log: journalctl -fu paddock-up\n"
        "Its user must be there: sudo useradd --system --home-dir /var/lib/paddock "
        "--shell /usr/sbin/nologin no-such-user\n",
    )


def test_launchd_s_agent_on_macos(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    ended = setup(home, "pipelines", PADDOCK_HOME="~/state", PADDOCK_ALLOW="run")
    log, agents = home / "Library/Logs/paddock-up.log", home / "Library/LaunchAgents"
    assert plistlib.loads(ended.out.encode()) == {
        "Label": "paddock-up",
        "ProgramArguments": [*COMMAND.split(), f"{home}/pipelines"],
        "WorkingDirectory": f"{home}/pipelines",
        "EnvironmentVariables": {"PADDOCK_HOME": f"{home}/state", "PADDOCK_ALLOW": "run"},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": 60,
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    assert (ended.status, ended.err) == (
        0,
        f"Install it with:\n  mkdir -p {agents} && "
        f"paddock setup {home}/pipelines > {agents}/paddock-up.plist\n"
        f"  launchctl bootstrap gui/{os.getuid()} {agents}/paddock-up.plist\n"
        f"Its log: {log}\n",
    )


@pytest.mark.parametrize(
    ("platform", "words", "message"),
    [
        ("freebsd14", [], "units of systemd and launchd, which this system does not have"),
        ("darwin", ["--system"], "`--system` prints a unit of systemd."),
        ("linux", ["--user", "nobody"], "`--user` belongs to `--system`."),
        ("linux", ["--system", "--user", "me\nGroup=root"], "cannot be written in a unit"),
        ("linux", ["missing"], "missing"),
        *(
            (platform, [name], "cannot be written in a ")
            for platform in ("linux", "darwin")
            for name in ("bell\a", os.fsdecode(b"latin-\xe9"))
        ),
        *(("linux", [name], "cannot be written") for name in ("line\nfeed", "space ", "back\\")),
    ],
)
def test_what_no_unit_can_say_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, platform: str, words: list[str], message: str
) -> None:
    if words and "cannot" in message and words[0] != "--system":
        (home / words[0]).mkdir()
    monkeypatch.setattr(sys, "platform", platform)
    ended = setup(home, *words)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err


# The unit of the guide


# systemd itself


ODD = ("a b", "100 %i", "$HOME ${x}", 'it\'s "new"', "back\\slash\\n", "ünï;cøde", "-x +y")


def verified(unit: Path) -> tuple[int, list[str]]:
    """Return what systemd's own tool says about a unit: its status, and lines that name us."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("NOT TRIED: systemd-analyze is missing (Debian: apt-get install systemd)")
    ended = subprocess.run(
        [verify, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    return ended.returncode, [line for line in ended.stderr.splitlines() if "paddock" in line]


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_systemd_finds_no_fault_in_a_unit_of_an_odd_folder(home: Path, name: str) -> None:
    folder, unit = home / name, home / UNIT_NAME
    folder.mkdir()
    printed = setup(home, str(folder), PADDOCK_HOME=str(home / f"state {name}")).out
    unit.write_text(printed)
    assert verified(unit) == (0, [])
    # read without unquoting
    assert f"WorkingDirectory={str(folder).replace('%', '%%')}" in printed.splitlines()
