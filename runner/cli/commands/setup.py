"""`paddock setup`: print the unit that keeps `paddock up` running, and how to install it.

The unit of systemd, or the agent of launchd, goes to stdout, so that it can be redirected; where it
belongs and the two commands that install it go to stderr. Nothing is written or started.
"""

from __future__ import annotations

import math
import os
import plistlib
import shlex
import sys
from pathlib import Path

from paddock.engine.system import distribution, processes
from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.cli.arguments import argument, existing_folder, flag, option
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.cli.systemd_unit import STOP_MARGIN_S, UNIT_NAME, UpUnit
from paddock.runner.config.config_file import config_folder
from paddock.runner.progress import printing
from paddock.runner.settings import Settings, read_settings

_SYSTEM_USER = "paddock"
_NAME = UNIT_NAME.removesuffix(".service")


@dataclass(frozen=True, slots=True)
class SetupFlags:
    """Arguments and options of `paddock setup`."""

    folders: list[str] | None = argument(
        "Folders of pipelines; the current one by default.", metavar="DIR"
    )
    system: bool = flag("A unit of the system, not of your own account.", "--system")
    user: str | None = option(
        f"With --system: its user, '{_SYSTEM_USER}' by default.", metavar="NAME"
    )


def setup(flags: SetupFlags) -> int:
    """Print the unit that keeps `paddock up` running, and how to install it."""
    platform = sys.platform
    if platform not in ("linux", "darwin"):
        raise CommandError(
            "`paddock setup` prints units of systemd and launchd, which this system does not have."
            "\n  Have `paddock up DIR` started by what it has."
        )
    if flags.system and platform == "darwin":
        raise CommandError("`--system` prints a unit of systemd.\n  Leave it out here.")
    if flags.user is not None and not flags.system:
        raise CommandError("`--user` belongs to `--system`.\n  Your own unit has your rights.")
    settings = read_settings(Path.cwd())
    config = config_folder(os.environ, Path.home()).parent.absolute()
    unit = UpUnit(
        processes.python_command("-m", "paddock.runner", "up"),
        tuple(existing_folder(text, "setup").resolve() for text in flags.folders or ["."]),
        (flags.user or _SYSTEM_USER) if flags.system else "",
        _environment(settings, config, is_system=flags.system),
        (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix)),
        settings.service.stop_timeout_s,
    )
    own = ["--system", "--user", unit.user] if unit.user else []
    again = shlex.join(["paddock", "setup", *own, *map(str, unit.folders)])
    if platform == "darwin":
        log = Path.home() / "Library/Logs" / f"{_NAME}.log"
        text = _launchd_agent(unit, str(log))
        place = Path.home() / "Library/LaunchAgents" / f"{_NAME}.plist"
        file = shlex.quote(str(place))
        lines = [f"{again} > {file}", f"launchctl bootstrap gui/{os.getuid()} {file}"]
        notes = [f"Its log: {log}"]
    elif unit.user:
        text, place = _systemd_unit(unit), Path("/etc/systemd/system") / UNIT_NAME
        start = f"sudo systemctl enable --now {_NAME}"
        lines = [f"{again} | sudo tee {place} > /dev/null", start]
        notes = [f"Its log: journalctl -fu {_NAME}"]
        try:
            Path(f"~{unit.user}").expanduser()
        except RuntimeError:
            notes.append(
                f"There is no user '{unit.user}' yet: sudo useradd --system --home-dir "
                f"/var/lib/paddock --shell /usr/sbin/nologin {shlex.quote(unit.user)}"
            )
    else:
        text, place = _systemd_unit(unit), config / "systemd/user" / UNIT_NAME
        file = shlex.quote(str(place))
        lines = [f"{again} > {file}", f"systemctl --user enable --now {_NAME}"]
        notes = [
            f"Its log: journalctl --user -fu {_NAME}",
            "It ends when you log out, unless you run: loginctl enable-linger",
        ]
    if not place.parent.exists():
        lines[0] = f"mkdir -p {shlex.quote(str(place.parent))} && {lines[0]}"
    printing.write_data(text)
    printing.print_err("\n".join(["Install it with:", *(f"  {line}" for line in lines), *notes]))
    return DONE


def _environment(settings: Settings, config: Path, *, is_system: bool) -> dict[str, str]:
    """Return the variables of this command that the unit takes over."""
    paths = {
        "PADDOCK_HOME": settings.state_dir,
        "PADDOCK_API_KEYS": settings.service.api_keys_file,
        "XDG_CONFIG_HOME": config,
    }
    given = {name: value for name, value in os.environ.items() if value.strip()}
    own = {} if is_system else {name: str(paths[name]) for name in paths if name in given}
    return own | {
        name: given[name] for name in ("PADDOCK_ALLOW", "PADDOCK_UP_HOST") if name in given
    }


def _systemd_unit(unit: UpUnit) -> str:
    if (wrong := unit.unwritable()) is not None:
        raise CommandError(
            f"{wrong!r} cannot be written in a unit of systemd.\n"
            "  Rename it: no control characters, no space or backslash at the end; in the path of "
            "Python also no quote, backslash or '$'."
        )
    examples = distribution.examples_folder()
    if examples is None:
        raise CommandError("This installation has no units: `paddock.examples` is missing.")
    return unit.text((examples / "deploy" / UNIT_NAME).read_text("utf-8"))


def _launchd_agent(unit: UpUnit, log: str) -> str:
    agent = {
        "Label": _NAME,
        "ProgramArguments": [*unit.command, *map(str, unit.folders)],
        "WorkingDirectory": str(unit.folders[0]),
        "EnvironmentVariables": dict(unit.environ),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},  # as `Restart=on-failure`
        "ExitTimeOut": math.ceil(unit.stop_timeout_s + STOP_MARGIN_S),
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    try:
        return plistlib.dumps(agent, sort_keys=False).decode()
    except ValueError:
        raise CommandError(
            "A path cannot be written in a property list.\n  Rename the folder: UTF-8, and no "
            "control characters."
        ) from None
