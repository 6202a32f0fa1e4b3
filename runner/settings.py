"""Read the configuration, once: flags > PADDOCK_* > OLLAMA_* > paddock.toml > defaults.

Every setting has one name: `keep_alive` in `paddock.toml` is `PADDOCK_KEEP_ALIVE` in the
environment, and `OLLAMA_KEEP_ALIVE` where Ollama has it too. `paddock.toml` is read beside the
pipeline, where only the names in `BESIDE_A_PIPELINE` count, then in `~/.config/paddock`. The
result is passed down as an argument; nothing else reads the environment.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.settings import PoolSettings, ServiceSettings
from paddock.engine.system.files import read_text
from paddock.runner.config import setting_values
from paddock.runner.config.setting_values import OtelMode, ServiceAddress, service_address

if TYPE_CHECKING:
    from paddock.engine.request import Role

STATE_FOLDER = ".paddock"
"""Beside each pipeline: ledger, locks, journals."""

UP_PORT = 11436
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class UnattendedSettings:
    """Settings of the local service, of `paddock up` and of the workers."""

    service_idle_s: float = 900.0
    """After so long without work the local service ends by itself."""
    address: ServiceAddress = field(default_factory=lambda: ServiceAddress(port=UP_PORT))
    """Where `paddock up` takes webhooks and tells how it is."""
    work_pool: str = ""
    """The Prefect work pool whose workers carry out runs; empty: `paddock up` does so itself."""
    max_runs: int = 2
    """Runs at a time that `paddock up` carries out on this machine."""
    max_attempts: int = 3
    """After so many failures for a passing reason an item is quarantined."""
    max_restarts: int = 3
    """How often a run that crashed is started again."""
    dead_after_s: float = 60.0
    """A machine of which the ledger in PostgreSQL hears nothing for so long is taken for dead."""
    smtp_url: str = field(default="", repr=False)
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


FILE_NAME = "paddock.toml"
KEYS_FILE_NAME = "api-keys"
"""In the state folder, where commands propose to make a file of keys."""


class SettingsError(Exception):
    """A setting that cannot be used: where it came from, what is wrong, what to write."""

    def __init__(self, origin: str, problem: str, remedy: str) -> None:
        self.origin = origin
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{origin}: {problem}\n  {remedy}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person, the environment and the settings files want."""

    pool: PoolSettings
    state_dir: Path
    """Where what outlives a run is kept; `PADDOCK_HOME`."""
    service: ServiceSettings = field(default_factory=ServiceSettings)
    address: ServiceAddress = field(default_factory=ServiceAddress)
    """Where the service listens, and where commands look for one; `service` has host and port."""
    api_key: str = field(default="", repr=False)
    """What commands show a service that asks for a key."""
    chat_model: str = "smollm2:135m"
    embed_model: str = "all-minilm"
    pool_urls: tuple[str, ...] = ()
    """Servers that answer in place of this machine's pool."""
    pool_key: str = field(default="", repr=False)
    """What those servers are shown."""
    pool_wait_s: float = 120.0
    """So long a run waits for servers elsewhere that are all away, before it stops."""
    allow: frozenset[str] = frozenset()
    """What pipelines may reach besides files and models: `network`, `run`, `secrets` and so on."""
    ledger_url: str = field(default="", repr=False)
    """A PostgreSQL database that several machines share; empty: a file beside each pipeline."""
    read_timeout_s: float = 120.0
    """So long a document may take for each of its pages or parts."""
    read_memory_bytes: int | None = None
    """What reading one document may take; None: what this machine has room for."""
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

    def value(self, name: str) -> Any:
        """Return the value of the setting of this name; see `SETTING_SPECS`."""
        value = attrgetter(SETTING_SPECS[name].field)(self)
        return value.written if isinstance(value, ServiceAddress) else value

    @property
    def default_models(self) -> Mapping[Role, str]:
        """Return the model of each role for steps that name none."""
        return {"chat": self.chat_model, "embed": self.embed_model}


@dataclass(frozen=True, slots=True)
class _SettingSpec:
    """One setting: how its value is read, and which field of `Settings` it fills."""

    read: Callable[[object], Any]
    field: str
    in_ollama: bool = False
    is_secret: bool = False
    flag: str = ""
    """What it is called on the command line, where that is another name."""


SETTING_SPECS: Mapping[str, _SettingSpec] = {
    "home": _SettingSpec(setting_values.folder, "state_dir"),
    "models": _SettingSpec(setting_values.folder, "pool.models_dir", in_ollama=True),
    "chat_model": _SettingSpec(setting_values.text, "chat_model"),
    "embed_model": _SettingSpec(setting_values.text, "embed_model"),
    "keep_alive": _SettingSpec(setting_values.keep_alive, "pool.keep_alive_s", in_ollama=True),
    "num_parallel": _SettingSpec(setting_values.count_or_auto, "pool.num_parallel", in_ollama=True),
    "max_loaded_models": _SettingSpec(
        setting_values.count_or_auto, "pool.max_loaded_models", in_ollama=True
    ),
    "max_queue": _SettingSpec(setting_values.count, "pool.max_queue", in_ollama=True),
    "max_wait": _SettingSpec(setting_values.seconds, "pool.max_wait_s"),
    "context_length": _SettingSpec(
        setting_values.context_or_auto, "pool.n_ctx_tokens", in_ollama=True
    ),
    "flash_attention": _SettingSpec(setting_values.switch, "pool.flash_attention", in_ollama=True),
    "kv_cache_type": _SettingSpec(setting_values.cache_type, "pool.kv_cache_type", in_ollama=True),
    "cache_layout": _SettingSpec(setting_values.cache_layout, "pool.cache_layout"),
    "cache_shelf": _SettingSpec(setting_values.size_or_auto, "pool.shelf_bytes"),
    "draft_models": _SettingSpec(setting_values.model_pairs, "pool.draft_models"),
    "num_gpu": _SettingSpec(setting_values.layer_count, "pool.n_gpu_layers"),
    "main_gpu": _SettingSpec(setting_values.index, "pool.main_gpu"),
    "split_mode": _SettingSpec(setting_values.split_mode, "pool.split_mode"),
    "gpu_overhead": _SettingSpec(setting_values.size, "pool.gpu_overhead_bytes", in_ollama=True),
    "allow_cpu": _SettingSpec(setting_values.flag, "pool.allow_cpu"),
    "num_batch": _SettingSpec(setting_values.count, "pool.n_batch_tokens"),
    "num_thread": _SettingSpec(setting_values.count_or_auto, "pool.n_threads"),
    "profile_s": _SettingSpec(setting_values.seconds, "pool.profile_s"),
    "tune": _SettingSpec(setting_values.tune_mode, "pool.tune"),
    "exact": _SettingSpec(setting_values.flag, "pool.is_exact"),
    "load_timeout": _SettingSpec(setting_values.seconds, "pool.load_timeout_s", in_ollama=True),
    "host": _SettingSpec(service_address, "address", in_ollama=True),
    "origins": _SettingSpec(setting_values.text_list, "service.origins", in_ollama=True),
    "api_keys": _SettingSpec(setting_values.file, "service.api_keys_file"),
    "api_key": _SettingSpec(setting_values.text, "api_key", is_secret=True),
    "insecure": _SettingSpec(setting_values.flag, "service.is_insecure"),
    "rate": _SettingSpec(setting_values.rate, "service.rate_per_minute"),
    "max_body": _SettingSpec(setting_values.size, "service.max_body_bytes"),
    "header_timeout": _SettingSpec(setting_values.seconds, "service.header_timeout_s"),
    "idle_timeout": _SettingSpec(setting_values.seconds, "service.idle_timeout_s"),
    "stop_timeout": _SettingSpec(setting_values.seconds, "service.stop_timeout_s"),
    "trusted_hosts": _SettingSpec(setting_values.text_list, "service.trusted_hosts"),
    "access_log": _SettingSpec(setting_values.flag, "service.access_log"),
    "log_json": _SettingSpec(setting_values.flag, "service.is_log_json"),
    "pool": _SettingSpec(setting_values.urls, "pool_urls"),
    "pool_key": _SettingSpec(setting_values.text, "pool_key", is_secret=True),
    "pool_wait": _SettingSpec(setting_values.seconds, "pool_wait_s"),
    "allow": _SettingSpec(setting_values.permissions, "allow"),
    "ledger": _SettingSpec(setting_values.text, "ledger_url", is_secret=True),
    "read_timeout": _SettingSpec(setting_values.seconds, "read_timeout_s"),
    "read_memory": _SettingSpec(setting_values.size, "read_memory_bytes"),
    "service_idle": _SettingSpec(setting_values.seconds, "unattended.service_idle_s"),
    "up_host": _SettingSpec(
        partial(service_address, port=UP_PORT), "unattended.address", flag="listen"
    ),
    "work_pool": _SettingSpec(setting_values.text, "unattended.work_pool"),
    "max_runs": _SettingSpec(setting_values.count, "unattended.max_runs"),
    "max_attempts": _SettingSpec(setting_values.count, "unattended.max_attempts"),
    "max_restarts": _SettingSpec(setting_values.count, "unattended.max_restarts"),
    "dead_after": _SettingSpec(setting_values.seconds, "unattended.dead_after_s"),
    "smtp": _SettingSpec(setting_values.text, "unattended.smtp_url", is_secret=True),
    "mail_from": _SettingSpec(setting_values.text, "unattended.mail_from"),
    "keep_runs": _SettingSpec(setting_values.seconds, "unattended.keep_runs_s"),
    "keep_calls": _SettingSpec(setting_values.seconds, "unattended.keep_calls_s"),
    "keep_tracking": _SettingSpec(setting_values.seconds, "unattended.keep_tracking_s"),
    "max_ledger": _SettingSpec(setting_values.size, "unattended.max_ledger_bytes"),
    "otel": _SettingSpec(setting_values.otel_mode, "otel"),
    "nohistory": _SettingSpec(setting_values.flag, "keeps_no_history", in_ollama=True),
    "debug": _SettingSpec(setting_values.flag, "is_debug", in_ollama=True),
}

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
    for name, origin, value in _all_values(folder, flags or {}, environ, home):
        field = SETTING_SPECS[name].field
        if field not in chosen:
            chosen[field] = _parsed_value(name, origin, value, home)
            origins[name] = origin
    return replace(_settings(chosen, origins, home), without_effect=_without_effect(environ))


def _without_effect(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables of Ollama's that are set and that no setting reads."""
    read = {f"OLLAMA_{name.upper()}" for name, known in SETTING_SPECS.items() if known.in_ollama}
    return tuple(
        sorted(
            name
            for name, value in environ.items()
            if name.startswith("OLLAMA_") and name not in read and value.strip()
        )
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


def _all_values(
    folder: Path | None, flags: Mapping[str, object], environ: Mapping[str, str], home: Path
) -> Iterator[tuple[str, str, object]]:
    """Yield name, origin and value of all that is set, the strongest first."""
    for name, value in flags.items():
        yield name, f"--{SETTING_SPECS[name].flag or name.replace('_', '-')}", value
    for prefix in ("PADDOCK_", "OLLAMA_"):
        for name, known in SETTING_SPECS.items():
            value = environ.get(prefix + name.upper(), "").strip()
            # An empty variable counts as none, as Ollama has it.
            if value and (known.in_ollama or prefix == "PADDOCK_"):
                yield name, prefix + name.upper(), value
    config = config_folder(environ, home)
    for file in _settings_files(folder, config):
        parsed = _parsed_toml(file)
        if not _is_same(file.parent, config):
            _refuse_far_reaching(file, parsed, config)
        yield from _file_values(file, parsed)


def _refuse_far_reaching(file: Path, names: Iterable[str], config: Path) -> None:
    """Refuse settings that a file beside a pipeline must not have; unknown ones are told later."""
    refused = [name for name in names if name in SETTING_SPECS and name not in BESIDE_A_PIPELINE]
    if not refused:
        return
    listed = " and ".join(", ".join(f"'{name}'" for name in refused).rsplit(", ", 1))
    it, variables = "them" if refused[1:] else "it", [f"PADDOCK_{one.upper()}" for one in refused]
    raise SettingsError(
        str(file),
        f"{listed} cannot be set in a file beside a pipeline, which may come from a stranger.",
        f"Move {it} to {config / FILE_NAME}, or set {' and '.join(variables)}.\n"
        f"  Beside a pipeline these count: {', '.join(sorted(BESIDE_A_PIPELINE))}.",
    )


def _settings_files(folder: Path | None, config: Path) -> Iterator[Path]:
    """Yield the settings files that there are, the nearest first."""
    for place in (folder, config):
        if place is not None and (place / FILE_NAME).is_file():
            yield place / FILE_NAME


def config_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of the person's settings file."""
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "paddock"


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _file_values(file: Path, parsed: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield what one settings file says; its relative folders are relative to it."""
    for name, value in parsed.items():
        if name not in SETTING_SPECS:
            near = difflib.get_close_matches(name, SETTING_SPECS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            known = ", ".join(f"'{name}'" for name in SETTING_SPECS)
            raise SettingsError(
                str(file), f"setting '{name}' is not known.", f"Known: {known}.{hint}"
            )
        if (
            SETTING_SPECS[name].read in (setting_values.folder, setting_values.file)
            and isinstance(value, str)
            and value[:1] != "~"
        ):
            value = str(file.parent / value)
        yield name, f"{file}: {name}", value


def _parsed_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(str(file), f"this is not TOML: {error}.", "Correct the file.") from None
    except OSError as error:
        problem = f"the settings file cannot be read: {error.strerror}."
        raise SettingsError(str(file), problem, "Make it readable, or move it away.") from None


def _parsed_value(name: str, origin: str, value: object, home: Path) -> Any:
    try:
        answer = SETTING_SPECS[name].read(value)
    except setting_values.BadValue as error:
        raise SettingsError(origin, f"{value!r} {error.problem}.", error.remedy) from None
    if isinstance(answer, Path):
        is_at_home = answer.parts[:1] == ("~",)
        return home.joinpath(*answer.parts[1:]) if is_at_home else answer.absolute()
    return answer
