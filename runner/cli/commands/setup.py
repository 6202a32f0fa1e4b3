"""`paddock setup`: keep `paddock up` running under systemd, with mail and a key.

All is planned from the files that there are, then shown, then done; nothing is recorded elsewhere.
Each file is written atomically, and a fault puts back those that were written before it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from paddock.engine.system import distribution, processes
from paddock.engine.system.light_dataclasses import dataclass, replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.cli.arguments import argument, existing_folder, flag, option
from paddock.runner.cli.exit_status import DONE, FAILED, CommandError
from paddock.runner.cli.setup_files import FileChange, ManagedFile, require_rights, write_all
from paddock.runner.cli.setup_plan import (
    COMMAND_S,
    MailTest,
    SetupPlace,
    SetupPlan,
    one_line,
    undo_plan,
)
from paddock.runner.cli.systemd_unit import UNIT_NAME, UpUnit, unit_variables
from paddock.runner.config.mail_server import MailServer, NoMailServer
from paddock.runner.notify.channels import send_mail
from paddock.runner.notify.notification import NotDelivered, Notification
from paddock.runner.progress import printing
from paddock.runner.schedule.discovery import PipelineFinder
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline

_SYSTEM_USER = "paddock"


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
    mail: str | None = option(
        "Set the mail server, by PADDOCK_SMTP or a question; send a test mail there.",
        metavar="ADDRESS",
    )
    keys: bool = flag("Make an API key if there is none.", "--keys")
    undo: bool = flag("Remove what it wrote, unless that was edited since.", "--undo")
    dry_run: bool = flag("Only show what would be done, and the unit.", "--dry-run")
    yes: bool = flag("Do it without a question.", "--yes")


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
        plan = undo_plan(place) if flags.undo else _setup_plan(place, flags)
        require_rights(plan.changes)
    except PermissionError as error:
        again = f"As root: {shlex.quote(sys.argv[0])} setup --system …"
        remedy = again if flags.system else "Make it writable for you."
        raise CommandError(f"{error.filename}: {error.strerror}.\n  {remedy}") from None
    printing.print_out("\n".join([*plan.left, *plan.lines()]) or "There is nothing to do.")
    if flags.dry_run:
        for text in plan.texts(place.unit):
            printing.print_out(f"\n{text}")
    elif plan.lines():
        if not flags.yes and not sys.stdin.isatty():
            raise CommandError("Nothing was changed.\n  `--yes` does this without a question.")
        if not flags.yes and not typer.confirm("Do this?", err=True):
            raise CommandError("Nothing was changed.")
        return _carry_out(plan)
    return DONE


# --- the plan


def _setup_plan(place: SetupPlace, flags: SetupFlags) -> SetupPlan:
    mail = _mail_test(place, flags.mail) if flags.mail else None
    changes = [
        *(_settings_changes(place, mail) if mail else []),
        *(_key_changes(place) if flags.keys else []),
    ]
    has_keys = flags.keys or ManagedFile.read(place.keys).text is not None
    changes += _unit_changes(place, flags, place.keys if has_keys else None)
    # Why `paddock up` will not serve pipelines of the folders: faults, no consent
    folders = [existing_folder(text, "setup").resolve() for text in flags.folders or ["."]]
    consents = Consents(place.settings.state_dir)
    # What is newly allowed, `up` takes for a consent of all files that are there.
    known = None if consents.is_wider(folders, place.settings.allow) else consents
    refused = []
    for file in PipelineFinder(folders).pipeline_files():
        try:
            text = file.read_text("utf-8")
            read_triggered_pipeline(file, text, place.settings, consents=known)
        except (OSError, UnicodeError, PipelineError) as error:
            refused.append(printing.printable_message(str(error)))
    plan = SetupPlan(mail, changes=tuple(changes), closing=tuple(refused))
    start = (place.systemctl("daemon-reload"), place.systemctl("enable", UNIT_NAME),
             place.systemctl("restart", UNIT_NAME))  # fmt: skip
    if not place.is_managed:
        words = "No systemd answers here, so nothing is started. Where one does:\n  "
        return replace(plan, closing=(*refused, words + one_line(*start)))
    after = start if changes or not place.is_up() else ()
    return replace(plan, after=after, closing=(*refused, *place.advice()))


def _unit_changes(place: SetupPlace, flags: SetupFlags, keys: Path | None) -> list[FileChange]:
    named = ("PADDOCK_HOME", "XDG_CONFIG_HOME")
    own = {name: str(Path(value).absolute()) for name in named if (value := os.environ.get(name))}
    before = unit_variables(ManagedFile.read(place.unit).text or "")
    kept = ("PADDOCK_ALLOW", "PADDOCK_UP_HOST")
    words = {n: value for n in kept if (value := os.environ.get(n) or before.get(n))}
    unit = UpUnit(
        processes.python_command("-m", "paddock.runner", "up"),
        tuple(existing_folder(text, "setup").resolve() for text in flags.folders or ["."]),
        _existing_user(flags.user or _SYSTEM_USER) if place.is_system else "",
        keys,
        words if place.is_system else {**own, **words},
        (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix)),
        place.settings.service.stop_timeout_s,
    )
    if (wrong := unit.unwritable()) is not None:
        raise CommandError(
            f"{wrong!r} cannot be written in a unit of systemd.\n"
            "  Rename it: no control characters, no space or backslash at the end; in the path of "
            "Python also no quote, backslash or '$'."
        )
    old = ManagedFile.read(place.unit)
    if place.unit.is_symlink() or (old.text is not None and old.state == "absent"):
        raise CommandError(
            f"{place.unit} is not from `paddock setup`.\n  Move it away, and try again."
        )
    examples = distribution.examples_folder()
    if examples is None:
        raise CommandError("This installation has no units: `paddock.examples` is missing.")
    what = f"`paddock up` as '{unit.user}', from the machine's start" if unit.user else (
        "`paddock up`, from your first login")  # fmt: skip
    text = unit.text((examples / "deploy" / UNIT_NAME).read_text("utf-8"))
    return old.unedited(is_alone=True).written(text, what, 0o644)


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
    except NoMailServer as error:
        raise CommandError(f"Mail: {error}.") from None
    return MailTest(url, unattended.mail_from, to)


def _settings_changes(place: SetupPlace, mail: MailTest) -> list[FileChange]:
    old = ManagedFile.read(place.settings_file).unedited()
    theirs = place.settings_in(old.others)
    lines = ""
    for name, value in {"smtp": mail.url, "mail_from": mail.sender}.items():
        if theirs.get(name, value) != value:
            raise CommandError(
                f"{place.settings_file} sets another '{name}' already.\n  Correct it there."
            )
        if value and name not in theirs:
            lines += place.setting_line(name, value)
    what = "the mail server, for this account alone to read"
    return old.written(lines, what) if lines else []


def _key_changes(place: SetupPlace) -> list[FileChange]:
    old = ManagedFile.read(place.keys.resolve())
    if any(line.partition("#")[0].strip() for line in (old.text or "").splitlines()):
        return []
    what = "a new API key, for this account alone to read"
    return old.written(f"{secrets.token_hex(24)} setup\n", what)


# --- carrying it out


def _carry_out(plan: SetupPlan) -> int:
    if plan.mail:
        try:
            asyncio.run(_send(plan.mail))
        except NotDelivered as error:
            printing.print_err(f"The test mail was not delivered: {error}.\n  Nothing was changed.")
            return FAILED
    if not _run(plan.before):
        return FAILED
    write_all(plan.changes)
    if not _run(plan.after):
        return FAILED
    printing.print_out("\n".join([*(["Done."] if plan.is_whole else []), *plan.closing]))
    return DONE if plan.is_whole else FAILED


async def _send(mail: MailTest) -> None:
    host = socket.gethostname()
    text = f"`paddock setup` sent this on {host}. Pipelines with `on.notify` send theirs like it."
    message = Notification("test", {}, f"[paddock] test mail ({host})", text)
    await send_mail(mail.url, mail.sender, mail.to, message)


def _run(commands: Sequence[Sequence[str]]) -> bool:
    """Run commands until one fails; print what that says."""
    for command in commands:
        ended = processes.run_blocking(command, timeout_s=COMMAND_S)
        if ended is None or ended.code != 0:
            reason = ended.stderr.decode("utf-8", "replace").strip() if ended else "it did not end"
            printing.print_err(
                f"`{shlex.join(command)}` failed: {reason}\n"
                "  Correct that and try again, or `--undo` what was written."
            )
            return False
    return True
