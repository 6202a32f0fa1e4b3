"""Every setting: its name, how its value is read, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from paddock.engine.system.records import Struct

from . import setting_values as values
from .service_address import service_address

UP_PORT = 11436


class SettingsError(Exception):
    """A setting that cannot be used: where it came from, what is wrong, what to write."""

    def __init__(self, origin: str, problem: str, remedy: str) -> None:
        self.origin = origin
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{origin}: {problem}\n  {remedy}")


class SettingSpec(Struct, frozen=True):
    read: Callable[[object], Any]
    field: str
    in_ollama: bool = False
    is_secret: bool = False
    flag: str = ""
    """What it is called on the command line, where that is another name."""


SETTING_SPECS: Mapping[str, SettingSpec] = {
    "home": SettingSpec(values.parse_folder, "state_dir"),
    "models": SettingSpec(values.parse_folder, "pool.models_dir", in_ollama=True),
    "chat_model": SettingSpec(values.parse_text, "chat_model"),
    "embed_model": SettingSpec(values.parse_text, "embed_model"),
    "keep_alive": SettingSpec(values.parse_keep_alive, "pool.keep_alive_s", in_ollama=True),
    "num_parallel": SettingSpec(values.parse_count_or_auto, "pool.num_parallel", in_ollama=True),
    "max_loaded_models": SettingSpec(
        values.parse_count_or_auto, "pool.max_loaded_models", in_ollama=True
    ),
    "max_queue": SettingSpec(values.parse_count, "pool.max_queue", in_ollama=True),
    "max_wait": SettingSpec(values.parse_seconds, "pool.max_wait_s"),
    "context_length": SettingSpec(
        values.parse_context_or_auto, "pool.n_ctx_tokens", in_ollama=True
    ),
    "flash_attention": SettingSpec(values.parse_switch, "pool.flash_attention", in_ollama=True),
    "kv_cache_type": SettingSpec(values.parse_cache_type, "pool.kv_cache_type", in_ollama=True),
    "cache_layout": SettingSpec(values.parse_cache_layout, "pool.cache_layout"),
    "cache_shelf": SettingSpec(values.parse_size_or_auto, "pool.shelf_bytes"),
    "draft_models": SettingSpec(values.parse_model_pairs, "pool.draft_models"),
    "num_gpu": SettingSpec(values.parse_layer_count, "pool.n_gpu_layers"),
    "main_gpu": SettingSpec(values.parse_index, "pool.main_gpu"),
    "split_mode": SettingSpec(values.parse_split_mode, "pool.split_mode"),
    "gpu_overhead": SettingSpec(values.parse_size, "pool.gpu_overhead_bytes", in_ollama=True),
    "allow_cpu": SettingSpec(values.parse_flag, "pool.allow_cpu"),
    "num_batch": SettingSpec(values.parse_count, "pool.n_batch_tokens"),
    "num_thread": SettingSpec(values.parse_count_or_auto, "pool.n_threads"),
    "profile_s": SettingSpec(values.parse_seconds, "pool.profile_s"),
    "exact": SettingSpec(values.parse_flag, "pool.is_exact"),
    "load_timeout": SettingSpec(values.parse_seconds, "pool.load_timeout_s", in_ollama=True),
    "host": SettingSpec(service_address, "address", in_ollama=True),
    "origins": SettingSpec(values.parse_text_list, "service.origins", in_ollama=True),
    "api_keys": SettingSpec(values.parse_file, "service.api_keys_file"),
    "api_key": SettingSpec(values.parse_text, "api_key", is_secret=True),
    "insecure": SettingSpec(values.parse_flag, "service.is_insecure"),
    "rate": SettingSpec(values.parse_rate, "service.rate_per_minute"),
    "max_body": SettingSpec(values.parse_size, "service.max_body_bytes"),
    "header_timeout": SettingSpec(values.parse_seconds, "service.header_timeout_s"),
    "idle_timeout": SettingSpec(values.parse_seconds, "service.idle_timeout_s"),
    "stop_timeout": SettingSpec(values.parse_seconds, "service.stop_timeout_s"),
    "trusted_hosts": SettingSpec(values.parse_text_list, "service.trusted_hosts"),
    "access_log": SettingSpec(values.parse_flag, "service.access_log"),
    "log_json": SettingSpec(values.parse_flag, "service.is_log_json"),
    "pool": SettingSpec(values.parse_urls, "pool_urls"),
    "pool_key": SettingSpec(values.parse_text, "pool_key", is_secret=True),
    "pool_wait": SettingSpec(values.parse_seconds, "pool_wait_s"),
    "allow": SettingSpec(values.parse_permissions, "allow"),
    "trust_state": SettingSpec(values.parse_folders, "trust_state"),
    "ledger": SettingSpec(values.parse_text, "ledger_url", is_secret=True),
    "readers": SettingSpec(values.parse_dask_scheduler, "readers_url"),
    "read_timeout": SettingSpec(values.parse_seconds, "read_timeout_s"),
    "read_memory": SettingSpec(values.parse_size, "read_memory_bytes"),
    "prefect": SettingSpec(values.parse_flag, "is_prefect"),
    "service_idle": SettingSpec(values.parse_seconds, "unattended.service_idle_s"),
    "up_host": SettingSpec(
        partial(service_address, port=UP_PORT), "unattended.address", flag="listen"
    ),
    "max_runs": SettingSpec(values.parse_count, "unattended.max_runs"),
    "max_attempts": SettingSpec(values.parse_count, "unattended.max_attempts"),
    "max_restarts": SettingSpec(values.parse_count, "unattended.max_restarts"),
    "smtp": SettingSpec(values.parse_text, "unattended.smtp_url", is_secret=True),
    "mail_from": SettingSpec(values.parse_text, "unattended.mail_from"),
    "keep_runs": SettingSpec(values.parse_seconds, "unattended.keep_runs_s"),
    "keep_calls": SettingSpec(values.parse_seconds, "unattended.keep_calls_s"),
    "keep_tracking": SettingSpec(values.parse_seconds, "unattended.keep_tracking_s"),
    "max_ledger": SettingSpec(values.parse_size, "unattended.max_ledger_bytes"),
    "otel": SettingSpec(values.parse_otel_mode, "otel"),
    "nohistory": SettingSpec(values.parse_flag, "keeps_no_history", in_ollama=True),
    "debug": SettingSpec(values.parse_flag, "is_debug", in_ollama=True),
}
