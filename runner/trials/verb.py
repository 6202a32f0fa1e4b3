"""The verb behind `paddock test`: carry out the tests of files, one after the other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from paddock.engine.request import Pool
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.prompt_file import is_prompt_file
from paddock.runner.border import Border
from paddock.runner.pools import home_pool
from paddock.runner.settings import read_settings
from paddock.runner.signals import stopping
from paddock.runner.verbs import FILE_THREADS

from . import prompts, subjects
from .outcome import Case, Suite
from .subjects import TestFile
from .trial import How, Interrupted, Mode, carried_out

Tell = Callable[[TestFile, Case], None]
"""Shows how a test went."""
Begin = Callable[[str], None]
"""Shows which test is being carried out."""


class NoSuchTest(Exception):
    """A test is asked for by a name that none has."""


def read(file: Path) -> TestFile:
    """Read the tests of a pipeline, or of a `.prompt.yml`.

    Raises:
        PipelineError: with every fault of the file, its tests included.
    """
    if is_prompt_file(file.name):
        return prompts.of_prompt_file(file)
    return subjects.of_pipeline(file)


def read_all(files: Sequence[Path]) -> list[TestFile]:
    """Read the tests of several files.

    Raises:
        PipelineError: with every fault of all of them.
    """
    found: list[TestFile] = []
    faults: list[Fault] = []
    for file in files:
        try:
            found.append(read(file))
        except PipelineError as error:
            faults += error.faults
    if faults:
        raise PipelineError(faults)
    return found


def carry_out(
    files: Sequence[TestFile],
    *,
    mode: Mode,
    only: Collection[str] = (),
    flags: Mapping[str, object] | None = None,
    pool: Pool | None = None,
    tell: Tell,
    begin: Begin = lambda name: None,
) -> tuple[Suite, ...]:
    """Carry out tests, and give how they went; each is told as soon as it is over.

    `flags` are settings given by hand; `pool` serves in place of this machine's.

    Raises:
        NoSuchTest: `only` names one that is not there.
        KeyboardInterrupt: Ctrl-C; the test in flight was ended in order.
        PipelineError: a settings file beside a pipeline wants more than is allowed.
        EngineError: this machine's pool cannot be opened.
    """
    _refuse_unknown(files, only)

    async def main() -> tuple[Suite, ...]:
        stop = asyncio.Event()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS))
        with stopping(stop, Border()):
            suites = [
                await _file(file, mode, only, flags or {}, pool, stop, tell, begin)
                for file in files
            ]
            return tuple(suites)

    try:
        return asyncio.run(main())
    except Interrupted:
        raise KeyboardInterrupt from None


async def _file(
    file: TestFile,
    mode: Mode,
    only: Collection[str],
    flags: Mapping[str, object],
    pool: Pool | None,
    stop: asyncio.Event,
    tell: Tell,
    begin: Begin,
) -> Suite:
    folder = file.file.parent
    settings = read_settings(folder, flags=flags)
    async with AsyncExitStack() as stack:
        opened: list[Pool] = [pool] if pool is not None else []

        async def home() -> Pool:
            if not opened:
                opened.append(await stack.enter_async_context(home_pool(settings)))
            return opened[0]

        how = How(mode, settings, settings.allow, os.environ, stop, home)
        cases = []
        for subject in file.subjects:
            if only and subject.test.name not in only:
                continue
            begin(subject.test.name)
            case = await carried_out(subject, how)
            tell(file, case)
            cases.append(case)
    notes = () if only else await asyncio.to_thread(_orphans, file, mode)
    return Suite(file.name, str(file.file), tuple(cases), (*file.notes, *notes))


def _orphans(file: TestFile, mode: Mode) -> tuple[str, ...]:
    """Tell of cassettes without a test; drop them where new ones are recorded."""
    notes = []
    for cassette in subjects.orphans(file.subjects, file.stem):
        shown = os.path.relpath(cassette)
        if mode == "record":
            cassette.unlink(missing_ok=True)
            notes.append(f"{shown} belonged to no test, and was dropped")
        else:
            notes.append(f"{shown} belongs to no test; `--record` drops it")
    return tuple(notes)


def _refuse_unknown(files: Sequence[TestFile], only: Collection[str]) -> None:
    names = [subject.test.name for file in files for subject in file.subjects]
    for name in sorted(set(only) - set(names)):
        listed = ", ".join(f"'{one}'" for one in names) or "none"
        raise NoSuchTest(f"There is no test '{name}'.\n  There are: {listed}.")
