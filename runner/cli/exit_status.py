"""From functions to Typer commands: exit statuses, flags, texts of errors.

0: done, 1: failed, 2: the YAML or the command line is wrong, 4: tests failed, 130: interrupted. A
run's report has the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from paddock.engine.system import private_files
from paddock.engine.system.disk_space import is_disk_full
from paddock.runner.progress import printing

DONE, FAILED, WRONG, TESTS_FAILED, INTERRUPTED = 0, 1, 2, 4, 130
TYPER = "typer"
"""In the metadata of a field of a command's flags: its option or argument."""

# Errors whose text is printed as it is, and their status. Looked up in `sys.modules`: an error can
# only come from a module that was imported, and `list` must not import the YAML language.
_STATUS_OF_ERRORS = {
    ("paddock.engine.errors", "EngineError"): FAILED,
    ("paddock.pipelines.errors", "PipelineError"): WRONG,
    ("paddock.steps.registry", "BrokenStep"): FAILED,
    ("paddock.steps.registry", "UnknownStep"): WRONG,
    ("paddock.steps.base", "StepError"): FAILED,
    ("paddock.runner.ledger.entries", "LedgerError"): FAILED,
    ("paddock.runner.ledger.run_locks", "Locked"): FAILED,
    ("paddock.runner.daemon.prefect_client", "TrackingError"): FAILED,
    ("paddock.runner.daemon.daemon_files", "DaemonError"): FAILED,
    ("paddock.runner.schedule.up", "UpError"): FAILED,
    ("paddock.runner.schedule.folder_locks", "FolderTaken"): FAILED,
    ("paddock.runner.config.pipeline_secrets", "RedactedError"): FAILED,
    ("paddock.runner.config.setting_specs", "SettingsError"): WRONG,
    ("paddock.runner.daemon.service_client", "ServiceError"): FAILED,
    ("paddock.runner.cli.exit_status", "CommandError"): WRONG,
}


class CommandError(Exception):
    """Wrong command line: a missing file, options that exclude one another; and what to do.

    Any function of this package may raise it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message, self.remedy = message, remedy
        super().__init__(f"{message}\n  {remedy}" if remedy else message)


def with_exit_status(command: Callable[..., int]) -> Callable[..., None]:
    """Return a Typer command for a function that returns its exit status.

    Arguments and options are the function's parameters, or, where there are many, the fields of a
    dataclass, whose object it takes as `flags`. What Typer is to know of one is in its type, or in
    the field that is its default. With `as_json`, an error is also printed as one object on stdout,
    so that a program that reads stdout always gets an object.
    """
    takes_flags = list(inspect.signature(command).parameters) == ["flags"]
    flags: type[Any] | None = get_type_hints(command)["flags"] if takes_flags else None

    @functools.wraps(command)
    def run(**kwargs: Any) -> None:
        try:
            status = command(**kwargs) if flags is None else command(flags(**kwargs))
        except (Exception, KeyboardInterrupt) as error:  # the outermost frame: each has a status
            status = _report_error(error, as_json=bool(kwargs.get("as_json")))
        raise typer.Exit(status)

    declared = command if flags is None else flags
    kinds, signature = get_type_hints(declared, include_extras=True), inspect.signature(declared)
    fields = {} if flags is None else {field.name: field for field in dataclasses.fields(flags)}
    parameters = []
    for name, each in signature.parameters.items():
        kind, default = kinds[name], each.default
        field = fields.get(name, default)
        if isinstance(field, dataclasses.Field) and TYPER in field.metadata:
            kind = Annotated[kind, field.metadata[TYPER]]
        if isinstance(default, dataclasses.Field):
            default = default.default
        parameters.append(each.replace(annotation=kind, default=default))
    if flags is not None:
        parameters.sort(key=lambda each: each.name not in flags.__annotations__)  # shared ones last
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def command_group(name: str, commands: Mapping[str, Callable[..., int]]) -> typer.Typer:
    group = typer.Typer(name=name, no_args_is_help=True, rich_markup_mode=None)
    for own_name, command in commands.items():
        group.command(own_name)(with_exit_status(command))
    return group


def _report_error(error: BaseException, *, as_json: bool) -> int:
    if isinstance(error, typer.Exit):
        return error.exit_code
    debug = os.environ.get("PADDOCK_DEBUG", "").strip().lower()
    is_debug = debug not in ("", "0", "false", "no", "off")
    if is_debug and not isinstance(error, KeyboardInterrupt | typer.Abort):
        traceback.print_exception(error)
    status, message = status_and_message(error)
    printing.print_err(message)
    if as_json:
        with contextlib.suppress(OSError):  # a full disk: stderr has the message
            faults = getattr(error, "faults", None)
            if faults is not None and all(hasattr(fault, "as_json") for fault in faults):
                error_json = {"ok": False, "faults": [fault.as_json() for fault in faults]}
            else:
                error_json = {"ok": False, "error": message}
            printing.print_json(error_json)
    return status


def status_and_message(error: BaseException) -> tuple[int, str]:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error) or "Interrupted."
    if isinstance(error, typer.Abort):  # Ctrl-C or Ctrl-D at a question, whose line is still open
        return INTERRUPTED, "\nInterrupted."
    for (module, name), status in _STATUS_OF_ERRORS.items():
        if isinstance(error, getattr(sys.modules.get(module), name, ())):
            return status, str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename is not None else ""
        remedy = ""
        if is_disk_full(error) and error.filename != printing.STDOUT:
            remedy = " Free some space and run again; what was finished is kept."
        is_named = isinstance(error.filename, str) and error.errno in (errno.EROFS, errno.EACCES)
        if is_named and Path(error.filename).is_relative_to(_state_folder()):
            remedy = " Set PADDOCK_HOME to a folder that you can write to."
        return FAILED, f"{place}{error.strerror}.{remedy}"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    file = _write_crash_file("".join(traceback.format_exception(error)))
    where = f"The traceback is in {file}" if file else "PADDOCK_DEBUG=1 shows the traceback"
    message = printing.printable_message(what)
    return FAILED, f"Internal error in Paddock ({message}). {where}; please report it."


def _state_folder() -> Path:
    return Path(os.environ.get("PADDOCK_HOME") or Path("~/.paddock").expanduser())


def _write_crash_file(text: str) -> Path | None:
    home = _state_folder()
    name = time.strftime("crash-%Y%m%d-%H%M%S") + f"-{os.getpid()}.txt"
    for folder in (home / "crashes", None):
        try:
            folder = private_files.private_folder(
                folder or Path(tempfile.mkdtemp(prefix="paddock-"))
            )
            with private_files.open_private(folder / name, errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            continue
        return folder / name
    return None
