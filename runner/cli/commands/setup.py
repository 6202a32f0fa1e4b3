"""`paddock setup`: print the unit that keeps `paddock up` running, and how to install it.

The unit of systemd, or the agent of launchd, goes to stdout, so that it can be redirected; the two
commands that install it go to stderr. Nothing is written or started. The lines are those of
`examples/deploy/paddock-up.service`. The system's unit has all of them; the unit of a person's own
manager has that person's rights, and no safeguard that needs a mount namespace or a capability:
many kernels refuse these to such a manager, and it would not start.
"""

from __future__ import annotations

import math
import os
import plistlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.system import distribution, processes
from paddock.engine.system.records import Struct
from paddock.runner.cli.arguments import argument, existing_folder, flag, option
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.config.config_file import config_folder
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings

UNIT_NAME = "paddock-up.service"
_SYSTEM_USER, _NAME = "paddock", UNIT_NAME.removesuffix(".service")
_STOP_MARGIN_S = 30.0  # after the drain: workers and Prefect's server end
_HOMES = ("/home", "/root", "/run/user")  # what ProtectHome hides
_TEMPORARY = ("/tmp", "/var/tmp")  # what PrivateTmp hides
_PLAIN_WORD = re.compile(r"[\w./:=,@+-]+")
# systemd strips a line's end, and takes a backslash there as its continuation.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|[\s\\]$")
# systemd refuses some, and would replace `$` in the name by which Python finds its environment.
_NOT_IN_PROGRAM = re.compile(r"[$'\"\\]")
_OF_SYSTEM = re.compile(
    r"(Wants|After|RequiresMountsFor|EnvironmentFile|Environment|User|Group|StateDirectory\w*"
    r"|UMask|ReadWritePaths|Protect\w+|PrivateTmp|CapabilityBoundingSet|AmbientCapabilities|RemoveIPC"
    r"|DevicePolicy|DeviceAllow)="
)


@dataclass(frozen=True, slots=True)
class SetupFlags:
    folders: list[str] | None = argument(
        "Folders of pipelines; the current one by default.", metavar="DIR"
    )
    system: bool = flag("A unit of the system, not of your own account.", "--system")
    user: str | None = option(
        f"With --system: its user, '{_SYSTEM_USER}' by default.", metavar="NAME"
    )


def setup(flags: SetupFlags) -> int:
    is_mac = sys.platform == "darwin"
    if sys.platform not in ("linux", "darwin"):
        raise CommandError(
            "`paddock setup` prints units of systemd and launchd, which this system does not have."
            "\n  Have `paddock up DIR` started by what it has."
        )
    if flags.system and is_mac:
        raise CommandError("`--system` prints a unit of systemd.\n  Leave it out here.")
    if flags.user is not None and not flags.system:
        raise CommandError("`--user` belongs to `--system`.\n  Your own unit has your rights.")
    settings = read_settings(Path.cwd())
    config = config_folder(os.environ, Path.home()).parent.absolute()
    user = (flags.user or _SYSTEM_USER) if flags.system else ""
    folders = [existing_folder(text, "setup").resolve() for text in flags.folders or ["."]]
    paths = {
        "PADDOCK_HOME": settings.state_dir,
        "PADDOCK_API_KEYS": settings.service.api_keys_file,
        "XDG_CONFIG_HOME": config,
    }
    given = {name: value for name, value in os.environ.items() if value.strip()}
    environ = {} if user else {name: str(paths[name]) for name in paths if name in given}
    environ |= {name: given[name] for name in ("PADDOCK_ALLOW", "PADDOCK_UP_HOST") if name in given}
    unit = UpUnit(
        processes.python_command("-m", "paddock.runner", "up"), folders, user, environ,
        settings.service.stop_timeout_s + _STOP_MARGIN_S,
    )  # fmt: skip
    log = f"journalctl --user -fu {_NAME}"
    notes = list[str]()
    if is_mac:
        log = str(Path.home() / "Library/Logs" / f"{_NAME}.log")
        text, place = unit.of_launchd(log), Path.home() / f"Library/LaunchAgents/{_NAME}.plist"
        start = f"launchctl bootstrap gui/{os.getuid()} {shlex.quote(str(place))}"
    elif user:
        text, place = unit.of_systemd(), Path("/etc/systemd/system", UNIT_NAME)
        start, log = f"sudo systemctl enable --now {_NAME}", f"journalctl -fu {_NAME}"
        notes = [
            f"Its user must be there: sudo useradd --system --home-dir /var/lib/paddock "
            f"--shell /usr/sbin/nologin {shlex.quote(user)}"
        ]
    else:
        text, place = unit.of_systemd(), config / "systemd/user" / UNIT_NAME
        start = f"systemctl --user enable --now {_NAME}"
        notes = ["It ends when you log out, unless you run: loginctl enable-linger"]
    own = ["--system", "--user", user] if user else []
    write = f"{shlex.join(['paddock', 'setup', *own, *map(str, folders)])} > "
    write = write.replace(">", "| sudo tee") if user else write
    file = shlex.quote(str(place))
    folder = "" if place.parent.exists() else f"mkdir -p {shlex.quote(str(place.parent))} && "
    printing.write_data(text)
    lines = [f"  {folder}{write}{file}{' > /dev/null' if user else ''}", f"  {start}"]
    printing.print_err("\n".join(["Install it with:", *lines, f"Its log: {log}", *notes]))
    return DONE


class UpUnit(Struct, frozen=True):
    """In what a unit of `paddock up` differs from another."""

    command: Sequence[str]
    """The program and its first words; the folders follow."""
    folders: Sequence[Path]
    user: str
    """Whose rights it has under the system's manager; empty: a unit of a person's own manager."""
    environ: Mapping[str, str]
    stop_timeout_s: float

    def of_systemd(self) -> str:
        words = [*map(str, self.folders), self.user, *self.command, *self.environ.values()]
        wrong = [text for text in words if _UNWRITABLE.search(text)]
        wrong += [self.command[0]] if _NOT_IN_PROGRAM.search(self.command[0]) else []
        if wrong:
            raise CommandError(
                f"{wrong[0]!r} cannot be written in a unit of systemd.\n"
                "  Rename it: no control characters, no space or backslash at the end; in the path "
                "of Python also no quote, backslash or '$'."
            )
        examples = distribution.examples_folder()
        if examples is None:
            raise CommandError("This installation has no units: `paddock.examples` is missing.")
        folders = " ".join(map(_word, map(str, self.folders)))
        needed = [*self.folders, *map(Path, (sys.executable, sys.prefix, sys.base_prefix))]

        def is_any_below(places: Sequence[str]) -> bool:
            return any(path.is_relative_to(place) for path in needed for place in places)

        # The lines that replace the template's, by their keys
        values = {
            "RequiresMountsFor": [f"RequiresMountsFor={folders}"],
            "ExecStart": [
                f"ExecStart={' '.join(map(_word, self.command))} {folders.replace('$', '$$')}",
                f"WorkingDirectory={str(self.folders[0]).replace('%', '%%')}",  # not unquoted
                *(f"Environment={_word(f'{name}={text}')}" for name, text in self.environ.items()),
            ],
            "User": [f"User={self.user}"],
            "Group": [],  # the user's own
            "ReadWritePaths": [f"ReadWritePaths={folders}"],
            "TimeoutStopSec": [f"TimeoutStopSec={self.stop_timeout_s:g}"],
            "ProtectHome": [f"ProtectHome={'read-only' if is_any_below(_HOMES) else 'yes'}"],
            "PrivateTmp": [f"PrivateTmp={'no' if is_any_below(_TEMPORARY) else 'yes'}"],
            "WantedBy": [f"WantedBy={'multi-user' if self.user else 'default'}.target"],
        }
        template = (examples / "deploy" / UNIT_NAME).read_text("utf-8")
        lines = (
            f"{line}\n"
            for general in template.splitlines()
            if not general.startswith("#") and (self.user or not _OF_SYSTEM.match(general))
            for line in values.get(general.partition("=")[0], [general])
        )
        return "".join(lines).lstrip()

    def of_launchd(self, log: str) -> str:
        agent = {
            "Label": _NAME,
            "ProgramArguments": [*self.command, *map(str, self.folders)],
            "WorkingDirectory": str(self.folders[0]),
            "EnvironmentVariables": dict(self.environ),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},  # as `Restart=on-failure`
            "ExitTimeOut": math.ceil(self.stop_timeout_s),
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


def _word(text: str) -> str:
    r"""Return one word as systemd's unquoting reads it: quotes, backslashes, specifiers.

    >>> _word("/srv/pipelines"), _word('/srv/100 % "new"')
    ('/srv/pipelines', '"/srv/100 %% \\"new\\""')
    """
    if _PLAIN_WORD.fullmatch(text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%") + '"'
