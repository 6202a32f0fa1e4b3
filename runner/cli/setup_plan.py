"""The plan of `paddock setup`: files and manager of systemd that are found, and what is done.

An undo takes back what it wrote, but leaves a file that was edited since: one is as it was written
if the digest in its block says so (`setup_files`). What a unit reads that stays, stays with it.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from paddock.engine.system import processes
from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.runner.config.config_file import FILE_NAME, config_folder
from paddock.runner.config.mail_server import MailServer
from paddock.runner.settings import KEYS_FILE_NAME, Settings, read_settings

from .setup_files import FileChange, ManagedFile
from .systemd_unit import SYSTEM_CONFIG, UNIT_NAME, key_file_of

_SYSTEM_UNITS = Path("/etc/systemd/system")
_LINGERING = Path("/var/lib/systemd/linger")  # whose own units outlive their sessions
COMMAND_S = 420.0  # a stop of the old one, and TimeoutStartSec of the new one


@dataclass(frozen=True, slots=True)
class SetupPlace:
    """Files and manager of a person's own unit, or of the system's."""

    is_system: bool
    unit: Path
    settings_file: Path
    keys: Path
    settings: Settings
    """Those that the unit would have."""
    manager: str
    """Systemd's state: 'offline' in most containers, empty if this session cannot reach it."""

    @classmethod
    def found(cls, *, is_system: bool) -> SetupPlace:
        manager = _printed(_systemctl("is-system-running", is_system=is_system))
        if is_system:
            file = SYSTEM_CONFIG / "environment"
            environ = {**_variables(ManagedFile.read(file).text or ""), **os.environ}
            unit, keys = _SYSTEM_UNITS / UNIT_NAME, SYSTEM_CONFIG / "keys"
            settings = read_settings(Path.cwd(), environ=environ)
        else:
            config = config_folder(os.environ, Path.home())
            unit, file = config.parent / "systemd/user" / UNIT_NAME, config / FILE_NAME
            settings = read_settings(Path.cwd())
            keys = settings.service.api_keys_file or settings.state_dir / KEYS_FILE_NAME
        return cls(is_system, unit, file.resolve(), keys, settings, manager)

    @property
    def is_managed(self) -> bool:
        return self.manager not in ("", "offline", "unknown")

    def systemctl(self, *words: str) -> tuple[str, ...]:
        return _systemctl(*words, is_system=self.is_system)

    def is_up(self) -> bool:
        verbs = ("is-active", "is-enabled")
        states = [_printed(self.systemctl(verb, UNIT_NAME)) for verb in verbs]
        return states[0] in ("active", "activating") and states[1] == "enabled"

    def advice(self) -> Iterator[str]:
        """Yield what to know of a unit that runs."""
        yield f"Its log: journalctl {'' if self.is_system else '--user '}-fu {UNIT_NAME}"
        if not self.is_system and not (_LINGERING / getpass.getuser()).exists():
            yield "It ends when you log out, unless you run: loginctl enable-linger"

    def settings_in(self, text: str) -> Mapping[str, object]:
        if not self.is_system:
            return tomllib.loads(text)
        named = _variables(text)
        return {name[8:].lower(): named[name] for name in named if name.startswith("PADDOCK_")}

    def setting_line(self, name: str, value: str) -> str:
        written = json.dumps(value, ensure_ascii=False)  # of printable text TOML and systemd agree
        return f"PADDOCK_{name.upper()}={written}\n" if self.is_system else f"{name} = {written}\n"


def _systemctl(*words: str, is_system: bool) -> tuple[str, ...]:
    return ("systemctl", *(() if is_system else ("--user",)), *words)


def _printed(command: Sequence[str]) -> str:
    ended = processes.run_blocking(command, timeout_s=COMMAND_S)
    return ended.stdout.decode("utf-8", "replace").strip() if ended else ""


def _variables(text: str) -> dict[str, str]:
    values = {}
    for name, written in re.findall(r"^\s*([A-Za-z_]\w*)=(.*)$", text, re.MULTILINE):
        with suppress(ValueError):  # a quote that is not closed
            values[name] = " ".join(shlex.split(written))
    return values


@dataclass(frozen=True, slots=True)
class MailTest:
    """A test mail, and the server that takes it."""

    url: str = field(repr=False)
    sender: str
    to: str

    def __str__(self) -> str:
        server = MailServer.of(self.url)
        return f"send a test mail to {self.to} by {server.host}:{server.port}"


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What is done, in this order: if the mail is refused, nothing was changed."""

    mail: MailTest | None = None
    before: tuple[Sequence[str], ...] = ()
    changes: tuple[FileChange, ...] = ()
    after: tuple[Sequence[str], ...] = ()
    left: tuple[str, ...] = ()
    """Sentences about files that stay."""
    closing: tuple[str, ...] = ()
    """Sentences about what is left to do by hand."""
    is_whole: bool = True
    """Whether nothing that matters is left to do by hand."""

    def texts(self, path: Path) -> list[str]:
        return [change.new for change in self.changes if change.path == path and change.new]

    def lines(self) -> list[str]:
        before, after = ([f"run {shlex.join(w)}" for w in ws] for ws in (self.before, self.after))
        mail = [str(self.mail)] if self.mail else []
        return [*mail, *before, *map(str, self.changes), *after]


def one_line(*commands: Sequence[str]) -> str:
    return " && ".join(map(shlex.join, commands))


def undo_plan(place: SetupPlace) -> SetupPlan:
    unit = ManagedFile.read(place.unit)
    is_gone = unit.is_own or not os.path.lexists(place.unit)
    own_keys = key_file_of(unit.text or "")
    keys = (own_keys or place.keys).resolve()
    needed = [] if is_gone else [place.settings_file, *([keys] if own_keys else [])]
    paths = dict.fromkeys((place.unit, place.settings_file, keys, place.keys.resolve()))
    # The plan to take the blocks out of files, but for those that stay
    found = map(ManagedFile.read, paths)
    ours = [file for file in found if file.state != "absent"]
    changes: list[FileChange] = []
    left = []
    for file in ours:
        if file.state == "edited" or (file.path == place.unit and not file.is_own):
            left.append(f"leave {file.path}: it was edited since `paddock setup` wrote it")
        elif file.path in needed:
            left.append(f"leave {file.path}: the unit that stays reads it")
        else:
            changes.append(file.removed())
    if is_gone and not (unit.is_own and place.is_managed):
        # Take back the enabling of the unit, if it is enabled
        target = "multi-user" if place.is_system else "default"
        link = place.unit.with_name(f"{target}.target.wants") / UNIT_NAME
        if link.is_symlink() and link.resolve() == place.unit.resolve():
            changes.append(FileChange(link, None, None, "the link that enabling made"))
    plan = SetupPlan(changes=tuple(changes), left=tuple(left))
    if not unit.is_own:
        return plan
    reload = place.systemctl("daemon-reload")
    if place.is_managed:
        end = place.systemctl("disable", "--now", UNIT_NAME)
        return replace(plan, before=(end,), after=(reload,))
    closing = (
        "No systemd answers here, so a service that runs was not stopped. Where one does:\n  "
        + one_line(place.systemctl("stop", UNIT_NAME), reload)
    )
    return replace(plan, closing=(closing,), is_whole=place.manager == "offline")
