"""Commands `paddock pause` and `paddock resume`: hold back the runs of `paddock up`.

They write the queue's file, so that they work while no `paddock up` runs, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import pipeline_file
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.daemon.service_client import ask_up
from paddock.runner.progress import printing
from paddock.runner.schedule import order_queue
from paddock.runner.settings import Settings, read_settings

_Pipeline = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE", help="Its file, or the name of one that `paddock up` serves."
    ),
]
_Trigger = Annotated[
    str | None,
    typer.Option("--trigger", metavar="KEY", help="Only this one; `paddock status` shows them."),
]


def pause(pipeline: _Pipeline, trigger: _Trigger = None) -> int:
    """Hold back the runs of a pipeline under `paddock up`, or those of one trigger.

    What is at work goes on. Orders wait until `paddock resume`, also over a restart.
    """
    return _change(pipeline, trigger, is_paused=True)


def resume(pipeline: _Pipeline, trigger: _Trigger = None) -> int:
    return _change(pipeline, trigger, is_paused=False)


def _change(text: str, key: str | None, *, is_paused: bool) -> int:
    if key == "":  # an empty variable of a shell would be the whole pipeline
        raise CommandError("The key of the trigger is empty.", "`paddock status` shows the keys.")
    trigger = key or ""
    settings = read_settings(Path.cwd())
    up, _ = ask_up(settings)
    queue_file = settings.state_dir / order_queue.QUEUE_FILE
    served: Sequence[Mapping[str, Any]] = ()
    if up is not None and Path(up.get("queue_file", "")).resolve() == queue_file.resolve():
        served = up["pipelines"]  # else it has another home
    fault, file = None, Path(text).absolute()
    try:
        file = _file(text, served)
    except CommandError as error:  # a pause of a file that is gone can be taken back
        fault = error
    entry = next((each for each in served if Path(each["file"]).resolve() == file.resolve()), None)
    try:
        with contextlib.closing(order_queue.open_queue_file(queue_file)) as db, db:
            is_new = not is_paused and order_queue.write_pause(
                db, str(file), trigger, is_paused=False
            )
            if not is_new:
                if fault is not None:
                    raise fault
                _check_trigger(file, entry, settings, trigger)
            if is_paused:
                is_new = order_queue.write_pause(db, str(file), trigger, is_paused=True)
            left = {each for _, each in order_queue.read_pauses(db, [str(file)])}
            places = {str(file), str(file.resolve()), entry["file"] if entry else str(file)}
            states = order_queue.count_open_orders(db, places, trigger)
    except sqlite3.Error as error:
        raise CommandError(
            f"{queue_file}: {error}.", "Is its disk full, or the file damaged?"
        ) from error
    what = f"`{trigger}` of {text}" if trigger else text
    waiting, running = counted(states["waiting"], "order"), states["running"]
    if is_paused:
        state = "is" if is_new else "was already"
        lines = [f"{what} {state} paused: {waiting} waiting, and what comes waits, too."]
        lines += ["Its running run goes on."] if running else []
        if not entry:
            up_here = f"No `paddock up` at {settings.unattended.address.url}"
            lines.append(f"{up_here} serves it: another one or a later one heeds the pause, too.")
    else:
        lines = [f"{what} {'is resumed' if is_new else 'was not paused'}: {waiting} waiting."]
        lines += [f"Still paused: {text}." for each in left if not each]
        lines += [f"Still paused: `{each}`." for each in sorted(left) if each]
    printing.print_out("\n".join(map(printing.printable_message, lines)))
    return DONE


def _file(text: str, served: Sequence[Mapping[str, Any]]) -> Path:
    """Return the file of a pipeline that a file, a folder or a name stands for.

    Raises:
        CommandError: there is none, or there are several.
    """
    try:
        return pipeline_file(text, "pause").absolute()
    except CommandError as error:
        found = [each["file"] for each in served if each["name"] == text]
        if len(found) == 1:
            return Path(found[0])
        if found:
            remedy = f"Name one: {', '.join(found)}."
            raise CommandError(f"'{text}' is the name of several.", remedy) from None
        names = ", ".join(sorted({f"'{each['name']}'" for each in served}))
        known = f"`paddock up` serves {names}." if names else error.remedy
        raise CommandError(error.message, known) from None


def _check_trigger(
    file: Path, entry: Mapping[str, Any] | None, settings: Settings, trigger: str
) -> None:
    """Check that a pipeline has triggers, and this one."""
    if entry is not None:
        known = [each["trigger"] for each in entry["triggers"]]
    else:  # what triggers are made of takes as long to import as all else here
        from paddock.runner.schedule.pipeline_triggers import trigger_keys

        known = trigger_keys(file, settings)
    if not known:
        raise CommandError(
            f"{file} has no triggers: nothing starts it by itself.",
            "Runs that are started by hand are not held back.",
        )
    if trigger and trigger not in known:
        names = ", ".join(f"'{key}'" for key in known)
        raise CommandError(f"{file} has no trigger '{trigger}'.", f"Known: {names}.")
