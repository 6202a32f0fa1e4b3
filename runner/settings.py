"""Read the configuration, once: flags > PADDOCK_* > OLLAMA_* > paddock.toml > defaults.

Every setting has one name: `keep_alive` in `paddock.toml` (`config.config_file`) is
`PADDOCK_KEEP_ALIVE` in the environment, and `OLLAMA_KEEP_ALIVE` where Ollama has it too. The result
is passed down as an argument; nothing else reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.settings import PoolSettings, ServiceSettings
from paddock.engine.system import distribution
from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.runner.config import setting_values
from paddock.runner.config.config_file import FILE_NAME, config_folder, file_values
from paddock.runner.config.service_address import ServiceAddress
from paddock.runner.config.setting_specs import SETTING_SPECS, UP_PORT, SettingsError
from paddock.runner.config.setting_values import OtelMode

if TYPE_CHECKING:
    from paddock.engine.request import Role

STATE_FOLDER = distribution.STATE_FOLDER
"""Beside each pipeline: ledger, locks, journals."""

_DAY_S = 86400.0


class UnattendedSettings(SelectiveFields, Struct, frozen=True):
    hidden = ("smtp_url",)

    service_idle_s: float = 900.0
    """After so long without work the local service ends by itself."""
    address: ServiceAddress = field(default_factory=lambda: ServiceAddress(port=UP_PORT))
    """Where `paddock up` takes webhooks and tells how it is."""
    max_runs: int = 2
    """Runs at a time that `paddock up` carries out on this machine."""
    max_attempts: int = 3
    """After so many failures for a passing reason an item is quarantined."""
    max_restarts: int = 3
    """How often a run that crashed is started again."""
    smtp_url: str = ""
    """`smtp://[user:password@]host[:port]`, or `smtps://`; for notifications by mail."""
    mail_from: str = ""
    keep_runs_s: float = 90 * _DAY_S
    """How long what is known of a run, and its log, is kept."""
    keep_calls_s: float = 180 * _DAY_S
    """How long replies are kept that no item needs any more."""
    keep_tracking_s: float = 14 * _DAY_S
    """How long Prefect keeps runs and events."""
    max_ledger_bytes: int = 0
    """Above it the oldest replies that no item needs go first; 0: no limit."""


_SECRET_NAMES = ("review.token", "api-keys", "residence", "up", "service", "prefect",
                 "ledgers", "chat-history", "orders.sqlite", "orders.sqlite-wal",
                 "orders.sqlite-shm", FILE_NAME)  # fmt: skip
KEYS_FILE_NAME = "api-keys"
"""In the state folder, where commands propose to make a file of keys."""


class Settings(SelectiveFields, Struct, frozen=True):
    hidden = ("api_key", "pool_key", "ledger_url")

    pool: PoolSettings
    state_dir: Path
    """Where what outlives a run is kept; `PADDOCK_HOME`."""
    service: ServiceSettings = field(default_factory=ServiceSettings)
    address: ServiceAddress = field(default_factory=ServiceAddress)
    """Where the service listens, and where commands look for one; `service` has host and port."""
    api_key: str = ""
    """What commands show a service that asks for a key."""
    chat_model: str = "smollm2:135m"
    embed_model: str = "all-minilm"
    pool_urls: tuple[str, ...] = ()
    """Servers that answer in place of this machine's pool."""
    pool_key: str = ""
    """What those servers are shown."""
    pool_wait_s: float = 120.0
    """So long a run waits for servers elsewhere that are all away, before it stops."""
    allow: frozenset[str] = frozenset()
    """What pipelines may reach besides files and models: `network`, `run`, `secrets` and so on."""
    trust_state: tuple[Path, ...] = ()
    """Folders of pipelines whose state counts, also if others made it; see `ledger.own_state`."""
    ledger_url: str = ""
    """A PostgreSQL database for the ledgers; empty: a file beside each pipeline."""
    readers_url: str = ""
    """A Dask scheduler whose workers read documents; empty: this machine reads them."""
    read_timeout_s: float = 120.0
    """So long a document may take for each of its pages or parts."""
    read_memory_bytes: int | None = None
    """What reading one document may take; None: what this machine has room for."""
    is_prefect: bool = False
    """Whether each run is a flow run of Prefect's; `PREFECT_API_URL` asks for it, too."""
    unattended: UnattendedSettings = field(default_factory=UnattendedSettings)
    otel: OtelMode = "off"
    """Whether runs are sent to OpenTelemetry's collector, and with prompts and answers."""
    is_debug: bool = False
    """Log each request, load and eviction of the service."""
    keeps_no_history: bool = False
    """Whether what was asked in the terminal chat is forgotten with it."""
    origins: Mapping[str, str] | None = None
    """Which setting came from where, for `paddock doctor`; defaults are left out."""
    without_effect: tuple[str, ...] = ()
    """Variables of Ollama's that are set and change nothing here."""
    left_out: tuple[str, ...] = ()
    """Sentences on a settings file beside the pipeline that does not count."""

    def kept_from(self, roots: Sequence[Path]) -> tuple[Path, ...]:
        """Return tokens, keys, consents and settings, which no pipeline reads or writes.

        `roots` are the folders that it may touch: the state folder may lie below one of them. Where
        one lies in the state folder, only what is named here is kept from it.
        """
        home = self.state_dir.resolve()
        is_within = any(root.is_relative_to(home) for root in roots)
        own = [home / name for name in _SECRET_NAMES] if is_within else [home]
        keys = self.service.api_keys_file
        config = config_folder(os.environ, _home_folder()) / FILE_NAME
        return tuple(path.resolve() for path in (*own, config, *([keys] if keys else ())))

    def value(self, name: str) -> Any:
        """Return the value of the setting of this name; see `SETTING_SPECS`."""
        value = attrgetter(SETTING_SPECS[name].field)(self)
        return value.written if isinstance(value, ServiceAddress) else value

    def trusts(self, folder: Path) -> bool:
        """Return whether state in this folder counts whatever its owner."""
        at = folder.resolve()
        return any(at.is_relative_to(trusted.resolve()) for trusted in self.trust_state)

    @property
    def default_models(self) -> Mapping[Role, str]:
        return {"chat": self.chat_model, "embed": self.embed_model}


def read_settings(
    folder: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
    home: Path | None = None,
) -> Settings:
    """Read every setting; `folder` is the pipeline's, `flags` are given by the caller's hand.

    Raises:
        SettingsError: a value that cannot be used, an unknown name in a file, a broken file.
    """
    home = _home_folder() if home is None else home
    chosen: dict[str, Any] = {}
    origins: dict[str, str] = {}
    left_out: list[str] = []

    def is_trusted(beside: Path) -> bool:
        return read_settings(environ=environ, home=home).trusts(beside)

    # Of each setting the strongest: a flag, a variable, the nearest file
    given: list[tuple[str, str, object]] = [
        (name, f"--{SETTING_SPECS[name].flag or name.replace('_', '-')}", value)
        for name, value in (flags or {}).items()
    ]
    for prefix in ("PADDOCK_", "OLLAMA_"):
        for name, known in SETTING_SPECS.items():
            if prefix == "OLLAMA_" and not known.in_ollama:
                continue
            # An empty variable counts as none, as Ollama has it.
            if text := environ.get(prefix + name.upper(), "").strip():
                given.append((name, prefix + name.upper(), text))
    written = file_values(folder, config_folder(environ, home), is_trusted, left_out.append)
    for name, origin, value in chain(given, written):
        field = SETTING_SPECS[name].field
        if field not in chosen:
            try:
                answer = SETTING_SPECS[name].read(value)
            except setting_values.BadValue as error:
                raise SettingsError(origin, f"{value!r} {error.problem}.", error.remedy) from None
            if isinstance(answer, tuple):
                answer = tuple(_whole_path(a, home) if isinstance(a, Path) else a for a in answer)
            chosen[field] = _whole_path(answer, home) if isinstance(answer, Path) else answer
            origins[name] = origin
    read = {f"OLLAMA_{name.upper()}" for name, known in SETTING_SPECS.items() if known.in_ollama}
    return replace(
        _settings(chosen, origins, home),
        without_effect=tuple(
            sorted(
                name
                for name, value in environ.items()
                if name.startswith("OLLAMA_") and name not in read and value.strip()
            )
        ),
        left_out=tuple(left_out),
    )


def _home_folder() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        problem = "this user has no home folder."
        raise SettingsError("HOME", problem, "Set HOME to a folder that can be written.") from None


def _settings(chosen: dict[str, Any], origins: dict[str, str], home: Path) -> Settings:
    """Build the answer; a folder that nothing names lies in the state folder."""
    parts: dict[str, dict[str, Any]] = {"": {}, "pool": {}, "service": {}, "unattended": {}}
    for path, value in chosen.items():
        if value is not None:
            part, _, name = path.rpartition(".")
            parts[part][name] = value
    own = {"state_dir": home / ".paddock", "address": ServiceAddress(), **parts[""]}
    state_dir, address = own["state_dir"], own["address"]
    folders = {"models_dir": state_dir / "models", "cache_dir": state_dir / "cache"}
    where = {"host": address.host, "port": address.port, "state_dir": state_dir / "service"}
    return Settings(
        pool=PoolSettings(**{**folders, **parts["pool"]}),
        service=ServiceSettings(**where, **parts["service"]),
        unattended=UnattendedSettings(**parts["unattended"]),
        origins=origins,
        **own,
    )


def _whole_path(path: Path, home: Path) -> Path:
    is_at_home = path.parts[:1] == ("~",)
    return home.joinpath(*path.parts[1:]) if is_at_home else path.absolute()


def is_ci(environ: Mapping[str, str]) -> bool:
    return environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off")
