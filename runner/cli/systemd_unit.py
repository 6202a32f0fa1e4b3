"""The systemd unit of `paddock up`: its text, and the quoting of paths in it.

The lines are those of `examples/deploy/paddock-up.service`. The system's unit has all of them; the
unit of a person's own manager has that person's rights, and no safeguard that needs a mount
namespace or a capability: many kernels refuse these to such a manager, and it would not start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from paddock.engine.system.light_dataclasses import dataclass, field

UNIT_NAME = "paddock-up.service"
STOP_MARGIN_S = 30.0  # after the drain: workers and Prefect's server end
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
class UpUnit:
    """In what a unit of `paddock up` differs from another."""

    command: tuple[str, ...]
    """The program and its first words; the folders follow."""
    folders: tuple[Path, ...]
    user: str = ""
    """Whose rights it has under the system's manager; empty: a unit of a person's own manager."""
    environ: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[Path, ...] = ()
    """Where that which it executes lies."""
    stop_timeout_s: float = 30.0

    def text(self, template: str) -> str:
        """Return the text of the unit file, after the one in `examples/deploy`."""
        # The lines that replace the template's, by their keys
        folders = " ".join(_word(str(folder)) for folder in self.folders)
        needed = (*self.folders, *self.programs)
        home = "read-only" if _is_any_below(needed, _HOMES) else "yes"
        temporary = "no" if _is_any_below(needed, _TEMPORARY) else "yes"
        values = {
            "RequiresMountsFor": [f"RequiresMountsFor={folders}"],
            "ExecStart": [
                f"ExecStart={' '.join(map(_word, self.command))} {folders.replace('$', '$$')}",
                f"WorkingDirectory={_without_specifiers(str(self.folders[0]))}",
                *(f"Environment={_word(f'{name}={text}')}" for name, text in self.environ.items()),
            ],
            "User": [f"User={self.user}"],
            "Group": [],  # the user's own
            "ReadWritePaths": [f"ReadWritePaths={folders}"],
            "TimeoutStopSec": [f"TimeoutStopSec={self.stop_timeout_s + STOP_MARGIN_S:g}"],
            "ProtectHome": [f"ProtectHome={home}"],
            "PrivateTmp": [f"PrivateTmp={temporary}"],
            "WantedBy": [f"WantedBy={'multi-user' if self.user else 'default'}.target"],
        }
        lines = (
            f"{line}\n"
            for general in template.splitlines()
            if not general.startswith("#") and (self.user or not _OF_SYSTEM.match(general))
            for line in values.get(general.partition("=")[0], [general])
        )
        return "".join(lines).lstrip()

    def unwritable(self) -> str | None:
        values = [*map(str, self.folders), self.user, *self.command, *self.environ.values()]
        if (wrong := next((text for text in values if _UNWRITABLE.search(text)), None)) is not None:
            return wrong
        return self.command[0] if _NOT_IN_PROGRAM.search(self.command[0]) else None


def _is_any_below(paths: Sequence[Path], places: Sequence[str]) -> bool:
    return any(path.is_relative_to(place) for path in paths for place in places)


def _word(text: str) -> str:
    r"""Return one word as systemd's unquoting reads it: quotes, backslashes, specifiers.

    >>> _word("/srv/pipelines"), _word('/srv/100 % "new"')
    ('/srv/pipelines', '"/srv/100 %% \\"new\\""')
    """
    if _PLAIN_WORD.fullmatch(text):
        return text
    return '"' + _without_specifiers(text.replace("\\", r"\\").replace('"', r"\"")) + '"'


def _without_specifiers(text: str) -> str:
    """Return a value of which systemd expands nothing; some are read without unquoting."""
    return text.replace("%", "%%")
