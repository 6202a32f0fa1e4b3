"""The config file `paddock.toml`: its values, names that do not exist, and what is refused there.

It is read beside the pipeline, where only the names in `BESIDE_A_PIPELINE` count, then in
`~/.config/paddock`.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from paddock.engine.system import distribution, no_links
from paddock.engine.system.files import identity_of_path
from paddock.engine.system.owners import Stranger, find_other_owner
from paddock.engine.system.text import one_line

from . import setting_values
from .setting_specs import SETTING_SPECS, SettingsError

FILE_NAME = distribution.SETTINGS_FILE

BESIDE_A_PIPELINE = frozenset((
    "chat_model", "embed_model", "draft_models", "context_length", "keep_alive", "num_parallel",
    "max_loaded_models", "max_queue", "max_wait", "pool_wait", "load_timeout", "num_gpu",
    "main_gpu", "split_mode", "gpu_overhead", "allow_cpu", "num_batch", "num_thread",
    "flash_attention", "kv_cache_type", "cache_layout", "cache_shelf", "profile_s",
    "max_attempts", "max_restarts", "keep_runs", "keep_calls", "max_ledger",
))  # fmt: skip
"""What a file beside a pipeline may set: which models, how they run, how often a document is
tried, and how long that folder's history is kept. All else decides where texts and keys go, who is
let in, what is written elsewhere or what a person agreed to, and a pipeline that arrives from
elsewhere may bring such a file along. A new setting is refused there until it is listed here."""


def file_values(
    folder: Path | None,
    config: Path,
    is_trusted: Callable[[Path], bool],
    note: Callable[[str], None],
) -> Iterator[tuple[str, str, object]]:
    """Yield name, origin and value of all that the settings files say, the nearest file first.

    `config` is the folder of the person's own file, `folder` that of a pipeline: its file is data
    if it is another user's, unless `is_trusted` returns that owners do not matter there.

    Raises:
        SettingsError: an unknown name, one that a file beside a pipeline must not have, no TOML.
    """
    places = [place / FILE_NAME for place in (folder, config) if place is not None]
    for file in filter(Path.is_file, places):
        is_beside = identity_of_path(file.parent) != identity_of_path(config)
        with _opened(file) as opened:
            why = (
                find_other_owner(os.fstat(opened.fileno()), is_for_groups=True)
                if is_beside
                else None
            )
            if why is not None and not is_trusted(file.parent):
                note(foreign_text(file, why, file.parent, config))
                continue
            try:
                parsed = tomllib.loads(opened.read().decode())
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise SettingsError(
                    str(file), f"this is not TOML: {error}.", "Correct the file."
                ) from None
        # Some settings a file beside a pipeline must not have; unknown ones are told later.
        far = [name for name in parsed if name in SETTING_SPECS and name not in BESIDE_A_PIPELINE]
        if is_beside and far:
            listed = " and ".join(", ".join(f"'{name}'" for name in far).rsplit(", ", 1))
            variables = " and ".join(f"PADDOCK_{name.upper()}" for name in far)
            pronoun = "them" if far[1:] else "it"
            raise SettingsError(
                str(file),
                f"{listed} cannot be set in a file beside a pipeline, which may come from a "
                "stranger.",
                f"Move {pronoun} to {config / FILE_NAME}, or set {variables}.\n"
                f"  Beside a pipeline these count: {', '.join(sorted(BESIDE_A_PIPELINE))}.",
            )
        # What one settings file says; its relative folders are relative to it.
        for name, value in parsed.items():
            if name not in SETTING_SPECS:
                near = difflib.get_close_matches(name, SETTING_SPECS, n=1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                known = ", ".join(f"'{name}'" for name in SETTING_SPECS)
                raise SettingsError(
                    str(file), f"setting '{name}' is not known.", f"Known: {known}.{hint}"
                )
            if (
                SETTING_SPECS[name].read in (setting_values.parse_folder, setting_values.parse_file)
                and isinstance(value, str)
                and value[:1] != "~"
            ):
                value = str(file.parent / value)
            yield name, f"{file}: {name}", value


def foreign_text(what: Path, why: Stranger, folder: Path, config: Path) -> str:
    """Return that a settings file or a state folder is data, and how its folder is trusted."""
    return (
        f"{one_line(str(what))} is not used: {why.value}.\n  If it is data, leave it. If those who "
        f"can write there may decide what Paddock does here, write into {config / FILE_NAME}:\n"
        f"  trust_state = [{json.dumps(str(folder), ensure_ascii=False)}]"
    )


def config_folder(environ: Mapping[str, str], home: Path) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "paddock"


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with no_links.open_named(file) as opened:
            yield opened
    except OSError as error:
        problem = f"the settings file cannot be read: {error.strerror}."
        raise SettingsError(str(file), problem, "Make it readable, or move it away.") from None
