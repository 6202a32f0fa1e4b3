"""Every setting: its name, how its value is read, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paddock.engine.system.records import record

from . import setting_values
from .service_address import service_address

UP_PORT = 11436


class SettingsError(Exception):
    """A setting that cannot be used: where it came from, what is wrong, what to write."""

    def __init__(self, origin: str, problem: str, remedy: str) -> None:
        self.origin = origin
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{origin}: {problem}\n  {remedy}")


@record(frozen=True, slots=True)
class SettingSpec:
    """One setting: how its value is read, and which field of `Settings` it fills."""

    read: Callable[[object], Any]
    field: str
    in_ollama: bool = False
    is_secret: bool = False
    flag: str = ""
    """What it is called on the command line, where that is another name."""


SETTING_SPECS: Mapping[str, SettingSpec] = {
    "home": SettingSpec(setting_values.folder, "state_dir"),
    "models": SettingSpec(setting_values.folder, "pool.models_dir", in_ollama=True),
    "chat_model": SettingSpec(setting_values.text, "chat_model"),
    "embed_model": SettingSpec(setting_values.text, "embed_model"),
    "keep_alive": SettingSpec(setting_values.keep_alive, "pool.keep_alive_s", in_ollama=True),
    "num_parallel": SettingSpec(setting_values.count_or_auto, "pool.num_parallel", in_ollama=True),
    "max_loaded_models": SettingSpec(
        setting_values.count_or_auto, "pool.max_loaded_models", in_ollama=True
    ),
    "max_queue": SettingSpec(setting_values.count, "pool.max_queue", in_ollama=True),
    "max_wait": SettingSpec(setting_values.seconds, "pool.max_wait_s"),
    "context_length": SettingSpec(
        setting_values.context_or_auto, "pool.n_ctx_tokens", in_ollama=True
    ),
    "flash_attention": SettingSpec(setting_values.switch, "pool.flash_attention", in_ollama=True),
    "kv_cache_type": SettingSpec(setting_values.cache_type, "pool.kv_cache_type", in_ollama=True),
    "cache_layout": SettingSpec(setting_values.cache_layout, "pool.cache_layout"),
    "cache_shelf": SettingSpec(setting_values.size_or_auto, "pool.shelf_bytes"),
    "draft_models": SettingSpec(setting_values.model_pairs, "pool.draft_models"),
    "num_gpu": SettingSpec(setting_values.layer_count, "pool.n_gpu_layers"),
    "main_gpu": SettingSpec(setting_values.index, "pool.main_gpu"),
    "split_mode": SettingSpec(setting_values.split_mode, "pool.split_mode"),
    "gpu_overhead": SettingSpec(setting_values.size, "pool.gpu_overhead_bytes", in_ollama=True),
    "allow_cpu": SettingSpec(setting_values.flag, "pool.allow_cpu"),
    "num_batch": SettingSpec(setting_values.count, "pool.n_batch_tokens"),
    "num_thread": SettingSpec(setting_values.count_or_auto, "pool.n_threads"),
    "profile_s": SettingSpec(setting_values.seconds, "pool.profile_s"),
    "exact": SettingSpec(setting_values.flag, "pool.is_exact"),
    "load_timeout": SettingSpec(setting_values.seconds, "pool.load_timeout_s", in_ollama=True),
    "host": SettingSpec(service_address, "address", in_ollama=True),
    "origins": SettingSpec(setting_values.text_list, "service.origins", in_ollama=True),
    "api_keys": SettingSpec(setting_values.file, "service.api_keys_file"),
    "api_key": SettingSpec(setting_values.text, "api_key", is_secret=True),
    "insecure": SettingSpec(setting_values.flag, "service.is_insecure"),
    "rate": SettingSpec(setting_values.rate, "service.rate_per_minute"),
    "max_body": SettingSpec(setting_values.size, "service.max_body_bytes"),
    "header_timeout": SettingSpec(setting_values.seconds, "service.header_timeout_s"),
    "idle_timeout": SettingSpec(setting_values.seconds, "service.idle_timeout_s"),
    "stop_timeout": SettingSpec(setting_values.seconds, "service.stop_timeout_s"),
    "trusted_hosts": SettingSpec(setting_values.text_list, "service.trusted_hosts"),
    "access_log": SettingSpec(setting_values.flag, "service.access_log"),
    "log_json": SettingSpec(setting_values.flag, "service.is_log_json"),
    "pool": SettingSpec(setting_values.urls, "pool_urls"),
    "pool_key": SettingSpec(setting_values.text, "pool_key", is_secret=True),
    "pool_wait": SettingSpec(setting_values.seconds, "pool_wait_s"),
    "allow": SettingSpec(setting_values.permissions, "allow"),
    "trust_state": SettingSpec(setting_values.folders, "trust_state"),
    "ledger": SettingSpec(setting_values.text, "ledger_url", is_secret=True),
    "readers": SettingSpec(setting_values.dask_scheduler, "readers_url"),
    "read_timeout": SettingSpec(setting_values.seconds, "read_timeout_s"),
    "read_memory": SettingSpec(setting_values.size, "read_memory_bytes"),
    "prefect": SettingSpec(setting_values.flag, "is_prefect"),
    "service_idle": SettingSpec(setting_values.seconds, "unattended.service_idle_s"),
    "up_host": SettingSpec(
        partial(service_address, port=UP_PORT), "unattended.address", flag="listen"
    ),
    "max_runs": SettingSpec(setting_values.count, "unattended.max_runs"),
    "max_attempts": SettingSpec(setting_values.count, "unattended.max_attempts"),
    "max_restarts": SettingSpec(setting_values.count, "unattended.max_restarts"),
    "smtp": SettingSpec(setting_values.text, "unattended.smtp_url", is_secret=True),
    "mail_from": SettingSpec(setting_values.text, "unattended.mail_from"),
    "keep_runs": SettingSpec(setting_values.seconds, "unattended.keep_runs_s"),
    "keep_calls": SettingSpec(setting_values.seconds, "unattended.keep_calls_s"),
    "keep_tracking": SettingSpec(setting_values.seconds, "unattended.keep_tracking_s"),
    "max_ledger": SettingSpec(setting_values.size, "unattended.max_ledger_bytes"),
    "otel": SettingSpec(setting_values.otel_mode, "otel"),
    "nohistory": SettingSpec(setting_values.flag, "keeps_no_history", in_ollama=True),
    "debug": SettingSpec(setting_values.flag, "is_debug", in_ollama=True),
}
