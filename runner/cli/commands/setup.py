"""`paddock setup`: keep `paddock up` running under systemd, with mail and a key; and undo that.

All is planned from the files that there are, then shown, then done; nothing is recorded elsewhere.
Each file is written atomically, and a fault puts back those that were written before it.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import secrets
import shlex
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from paddock.engine.system import distribution, processes
from paddock.runner.cli.arguments import existing_folder
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError
from paddock.runner.cli.managed_files import (
    FileChange,
    block_state,
    mode_of,
    require_rights,
    text_of,
    with_block,
    without_block,
    write_all,
)
from paddock.runner.cli.systemd_unit import SYSTEM_CONFIG, UNIT_NAME, UpUnit, key_file_of
from paddock.runner.notify.channels import send_mail
from paddock.runner.notify.delivery import MailServer, NotDelivered
from paddock.runner.notify.notification import Notification
from paddock.runner.progress import console
from paddock.runner.settings import (
    FILE_NAME,
    KEYS_FILE_NAME,
    Settings,
    config_folder,
    read_settings,
)

_SYSTEM_UNITS = Path("/etc/systemd/system")
_SYSTEM_USER = "paddock"
_LINGERING = Path("/var/lib/systemd/linger")  # whose own units outlive their sessions
_COMMAND_S = 420.0  # a stop of the old one, and TimeoutStartSec of the new one
_UNIT_MODE = 0o644


@dataclass(frozen=True, slots=True)
class SetupFlags:
    """Arguments and options of `paddock setup`."""

    folders: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR", help="Folders of pipelines; the current one by default."),
    ] = None
    system: Annotated[
        bool, typer.Option("--system", help="A unit of the system, not of your own account.")
    ] = False
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"With --system: its user, '{_SYSTEM_USER}' by default."),
    ] = None
    mail: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Set the mail server, by PADDOCK_SMTP or a question; send a test mail there.",
        ),
    ] = None
    keys: Annotated[bool, typer.Option("--keys", help="Make an API key if there is none.")] = False
    undo: Annotated[
        bool, typer.Option("--undo", help="Remove what it wrote, unless that was edited since.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done, and the unit.")
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Do it without a question.")] = False


def setup(flags: SetupFlags) -> int:
    """Keep `paddock up` running under systemd, with mail and a key.

    Shows what it will do, and asks. The same command again changes only what differs.
    """
    if sys.platform != "linux":
        raise CommandError(
            "`paddock setup` writes units of systemd, which this system does not have.\n"
            "  Have `paddock up DIR` started by what it has, such as launchd."
        )
    if flags.user and not flags.system:
        raise CommandError("`--user` belongs to `--system`.\n  Your own unit has your rights.")
    try:
        place = SetupPlace.found(is_system=flags.system)
        plan = _undo_plan(place) if flags.undo else _setup_plan(place, flags)
        require_rights(plan.changes)
    except PermissionError as error:
        again = f"As root: {shlex.quote(sys.argv[0])} setup --system …"
        remedy = again if flags.system else "Make it writable for you."
        raise CommandError(f"{error.filename}: {error.strerror}.\n  {remedy}") from None
    console.print_out("\n".join([*plan.left, *plan.lines()]) or "There is nothing to do.")
    if flags.dry_run:
        for change in plan.changes:
            if change.path == place.unit and change.new:
                console.print_out(f"\n{change.new}")
    elif plan.lines():
        _require_consent(is_given=flags.yes)
        return _carry_out(plan)
    return DONE


# --- what there is


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
            environ = {**_variables(text_of(file) or ""), **os.environ}
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

    @property
    def enabling_link(self) -> Path:
        target = "multi-user" if self.is_system else "default"
        return self.unit.with_name(f"{target}.target.wants") / UNIT_NAME

    def systemctl(self, *words: str) -> tuple[str, ...]:
        return _systemctl(*words, is_system=self.is_system)

    def is_up(self) -> bool:
        """Return whether the unit runs, and starts by itself."""
        verbs = ("is-active", "is-enabled")
        states = [_printed(self.systemctl(verb, UNIT_NAME)) for verb in verbs]
        return states[0] in ("active", "activating") and states[1] == "enabled"

    def settings_in(self, text: str) -> Mapping[str, object]:
        """Return what a text of the settings file sets."""
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
    ended = processes.run_blocking(command, timeout_s=_COMMAND_S)
    return ended.stdout.decode("utf-8", "replace").strip() if ended else ""


def _variables(text: str) -> dict[str, str]:
    """Return the variables of an environment file of systemd."""
    values = {}
    for name, written in re.findall(r"^\s*([A-Za-z_]\w*)=(.*)$", text, re.MULTILINE):
        with suppress(ValueError):  # a quote that is not closed
            values[name] = " ".join(shlex.split(written))
    return values


# --- the plan


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

    def lines(self) -> list[str]:
        before, after = ([f"run {shlex.join(w)}" for w in ws] for ws in (self.before, self.after))
        mail = [str(self.mail)] if self.mail else []
        return [*mail, *before, *map(str, self.changes), *after]


def _setup_plan(place: SetupPlace, flags: SetupFlags) -> SetupPlan:
    mail = _mail_test(place, flags.mail) if flags.mail else None
    changes = [
        *(_settings_changes(place, mail) if mail else []),
        *(_key_changes(place) if flags.keys else []),
    ]
    has_keys = flags.keys or text_of(place.keys) is not None
    changes += _unit_changes(place, flags, place.keys if has_keys else None)
    start = (place.systemctl("daemon-reload"), place.systemctl("enable", UNIT_NAME),
             place.systemctl("restart", UNIT_NAME))  # fmt: skip
    closing = [f"Its log: journalctl {'' if place.is_system else '--user '}-fu {UNIT_NAME}"]
    if not place.is_managed:
        closing = [
            "No systemd answers here, so nothing is started. Where one does:\n  "
            + _one_line(*start)
        ]
    elif not place.is_system and not (_LINGERING / getpass.getuser()).exists():
        closing.append("It ends when you log out, unless you run: loginctl enable-linger")
    is_started = place.is_managed and (bool(changes) or not place.is_up())
    after = start if is_started else ()
    return SetupPlan(mail, (), tuple(changes), after, closing=tuple(closing))


def _undo_plan(place: SetupPlace) -> SetupPlan:
    changes, left = [], []
    unit = text_of(place.unit) or ""
    is_ours = block_state(unit) == "intact" and not (without_block(unit) or place.unit.is_symlink())
    is_gone = is_ours or not os.path.lexists(place.unit)
    named_keys = (key_file_of(unit) or place.keys).resolve()
    needed = () if is_gone else (place.settings_file, *([named_keys] if key_file_of(unit) else []))
    for path in dict.fromkeys((place.unit, place.settings_file, named_keys, place.keys.resolve())):
        text = text_of(path) or ""
        state = block_state(text)
        if state == "edited" or (state == "intact" and path == place.unit and not is_ours):
            left.append(f"leave {path}: it was edited since `paddock setup` wrote it")
        elif state == "intact" and path in needed:
            left.append(f"leave {path}: the unit that stays reads it")
        elif state == "intact":
            others = without_block(text) or None
            changes.append(FileChange(path, text, others, "what it wrote there", mode_of(path)))
    if is_ours and place.is_managed:
        end = (place.systemctl("disable", "--now", UNIT_NAME),)
        reload = (place.systemctl("daemon-reload"),)
        return SetupPlan(None, end, tuple(changes), reload, tuple(left))
    link = place.enabling_link
    if is_gone and link.is_symlink() and link.resolve() == place.unit.resolve():
        changes.append(FileChange(link, None, None, "the link that enabling made"))
    if not is_ours:
        return SetupPlan(None, (), tuple(changes), (), tuple(left))
    closing = (
        "No systemd answers here, so a service that runs was not stopped. Where one does:\n  "
        + _one_line(place.systemctl("stop", UNIT_NAME), place.systemctl("daemon-reload")),
    )
    is_whole = place.manager == "offline"
    return SetupPlan(None, (), tuple(changes), (), tuple(left), closing, is_whole)


def _one_line(*commands: Sequence[str]) -> str:
    return " && ".join(map(shlex.join, commands))


def _unit_changes(place: SetupPlace, flags: SetupFlags, keys: Path | None) -> list[FileChange]:
    """Return the change of the unit file, if it differs."""
    unit = UpUnit(
        processes.python_command("-m", "paddock.runner", "up"),
        tuple(existing_folder(text, "setup").resolve() for text in flags.folders or ["."]),
        _existing_user(flags.user or _SYSTEM_USER) if place.is_system else "",
        keys,
        {} if place.is_system else {
            name: str(Path(os.environ[name]).absolute())
            for name in ("PADDOCK_HOME", "XDG_CONFIG_HOME") if os.environ.get(name)
        },
        (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix)),
        place.settings.service.stop_timeout_s,
    )  # fmt: skip
    if (wrong := unit.unwritable()) is not None:
        raise CommandError(
            f"{wrong!r} cannot be written in a unit of systemd.\n"
            "  Rename it: no control characters, no space or backslash at the end; in the path of "
            "Python also no quote, backslash or '$'."
        )
    old = text_of(place.unit)
    if place.unit.is_symlink() or (old is not None and block_state(old) == "absent"):
        raise CommandError(
            f"{place.unit} is not from `paddock setup`.\n  Move it away, and try again."
        )
    if old is not None and (block_state(old) == "edited" or without_block(old)):
        raise _edited(place.unit)
    examples = distribution.examples_folder()
    if examples is None:
        raise CommandError("This installation has no units: `paddock.examples` is missing.")
    new = with_block("", unit.text((examples / "deploy" / UNIT_NAME).read_text("utf-8")))
    what = f"`paddock up` as '{unit.user}', from the machine's start" if unit.user else (
        "`paddock up`, from your first login")  # fmt: skip
    return [] if new == old else [FileChange(place.unit, old, new, what, _UNIT_MODE)]


def _existing_user(name: str) -> str:
    try:
        Path(f"~{name}").expanduser()
    except RuntimeError:
        raise CommandError(
            f"There is no user '{name}'. Name another by `--user`, or make this one:\n  useradd "
            f"--system --home-dir /var/lib/paddock --shell /usr/sbin/nologin {shlex.quote(name)}"
        ) from None
    return name


def _mail_test(place: SetupPlace, to: str) -> MailTest:
    """Return the mail to send; ask for the server if none is set."""
    unattended = place.settings.unattended
    url = unattended.smtp_url
    if not url and sys.stdin.isatty():
        question = "Mail server, as in smtp://user:password@host (not shown)"
        url = str(typer.prompt(question, hide_input=True, err=True)).strip()
    if not (url + unattended.mail_from + to).isprintable():
        raise CommandError("A control character is in an address of mail.\n  Leave it out.")
    try:
        MailServer.of(url)
    except NotDelivered as error:
        raise CommandError(f"Mail: {error}.") from None
    return MailTest(url, unattended.mail_from, to)


def _settings_changes(place: SetupPlace, mail: MailTest) -> list[FileChange]:
    """Return the change of the settings file, if it differs."""
    old = text_of(place.settings_file)
    if old is not None and block_state(old) == "edited":
        raise _edited(place.settings_file)
    theirs = place.settings_in(without_block(old or ""))
    lines = ""
    for name, value in {"smtp": mail.url, "mail_from": mail.sender}.items():
        if theirs.get(name, value) != value:
            raise CommandError(
                f"{place.settings_file} sets another '{name}' already.\n  Correct it there."
            )
        if value and name not in theirs:
            lines += place.setting_line(name, value)
    new = with_block(old or "", lines) if lines else old
    what = "the mail server, for this account alone to read"
    return [] if new == old else [FileChange(place.settings_file, old, new, what)]


def _key_changes(place: SetupPlace) -> list[FileChange]:
    old = text_of(place.keys)
    if any(line.partition("#")[0].strip() for line in (old or "").splitlines()):
        return []
    new = with_block(old or "", f"{secrets.token_hex(24)} setup\n")
    what = "a new API key, for this account alone to read"
    return [FileChange(place.keys.resolve(), old, new, what)]


def _edited(path: Path) -> CommandError:
    return CommandError(
        f"{path} was edited since `paddock setup` wrote it.\n"
        "  Move it away, and try again; `systemctl edit` keeps changes of a unit in another file."
    )


# --- carrying it out


def _require_consent(*, is_given: bool) -> None:
    if is_given:
        return
    if not sys.stdin.isatty():
        raise CommandError("Nothing was changed.\n  `--yes` does this without a question.")
    if not typer.confirm("Do this?", err=True):
        raise CommandError("Nothing was changed.")


def _carry_out(plan: SetupPlan) -> int:
    if plan.mail:
        try:
            asyncio.run(_send(plan.mail))
        except NotDelivered as error:
            console.print_err(f"The test mail was not delivered: {error}.\n  Nothing was changed.")
            return FAILED
    if not _run(plan.before):
        return FAILED
    write_all(plan.changes)
    if not _run(plan.after):
        return FAILED
    console.print_out("\n".join([*(["Done."] if plan.is_whole else []), *plan.closing]))
    return DONE if plan.is_whole else FAILED


async def _send(mail: MailTest) -> None:
    host = socket.gethostname()
    text = f"`paddock setup` sent this on {host}. Pipelines with `on.notify` send theirs like it."
    message = Notification("test", {}, f"[paddock] test mail ({host})", text)
    await send_mail(mail.url, mail.sender, mail.to, message)


def _run(commands: Sequence[Sequence[str]]) -> bool:
    """Run commands until one fails; print what that says."""
    for command in commands:
        ended = processes.run_blocking(command, timeout_s=_COMMAND_S)
        if ended is None or ended.code != 0:
            said = ended.stderr.decode("utf-8", "replace").strip() if ended else "it did not end"
            console.print_err(
                f"`{shlex.join(command)}` failed: {said}\n"
                "  Correct that and try again, or `--undo` what was written."
            )
            return False
    return True
