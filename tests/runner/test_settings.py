"""Where a setting comes from, which one wins, and what a bad one gets."""

from pathlib import Path
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings, ServiceSettings
from paddock.runner.config.config_file import BESIDE_A_PIPELINE
from paddock.runner.config.setting_specs import SETTING_SPECS, SettingsError
from paddock.runner.settings import Settings, read_settings


def read(tmp_path: Path, **environ: str) -> Settings:
    return read_settings(tmp_path / "pipeline", environ=environ, home=tmp_path)


def toml(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "paddock.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_any_setting_the_defaults_hold(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert settings.state_dir == tmp_path / ".paddock"
    assert settings.default_models == {"chat": "smollm2:135m", "embed": "all-minilm"}
    assert settings.pool == PoolSettings(
        models_dir=tmp_path / ".paddock/models", cache_dir=tmp_path / ".paddock/cache"
    )


def test_the_nearer_source_wins(tmp_path: Path) -> None:
    def keep_alive_s(flags: dict[str, object] | None = None, **environ: str) -> float:
        folder = tmp_path / "pipeline"
        settings = read_settings(folder, flags=flags, environ=environ, home=tmp_path)
        return settings.pool.keep_alive_s

    assert keep_alive_s() == 300
    toml(tmp_path / ".config/paddock", 'keep_alive = "1m"')
    assert keep_alive_s() == 60
    toml(tmp_path / "pipeline", "keep_alive = 2")
    assert keep_alive_s() == 2
    assert keep_alive_s(OLLAMA_KEEP_ALIVE="3") == 3
    assert keep_alive_s(OLLAMA_KEEP_ALIVE="3", PADDOCK_KEEP_ALIVE="4s") == 4
    assert keep_alive_s({"keep_alive": 5}, PADDOCK_KEEP_ALIVE="4s") == 5


POOL: dict[str, tuple[str, str, Any]] = {
    "OLLAMA_MODELS": ("/srv/models", "models_dir", Path("/srv/models")),
    "PADDOCK_NUM_PARALLEL": ("4", "num_parallel", 4),
    "PADDOCK_MAX_LOADED_MODELS": ("2", "max_loaded_models", 2),
    "PADDOCK_MAX_QUEUE": ("9", "max_queue", 9),
    "PADDOCK_CONTEXT_LENGTH": ("16k", "n_ctx_tokens", 16384),
    "PADDOCK_FLASH_ATTENTION": ("1", "flash_attention", "on"),
    "PADDOCK_KV_CACHE_TYPE": ("q8_0", "kv_cache_type", "q8_0"),
    "PADDOCK_NUM_GPU": ("0", "n_gpu_layers", 0),
    "PADDOCK_NUM_THREAD": ("2", "n_threads", 2),
    "PADDOCK_NUM_BATCH": ("256", "n_batch_tokens", 256),
    "PADDOCK_MAIN_GPU": ("1", "main_gpu", 1),
    "PADDOCK_SPLIT_MODE": ("tensor", "split_mode", "tensor"),
    "PADDOCK_ALLOW_CPU": ("1", "allow_cpu", True),
    "PADDOCK_MAX_WAIT": ("2.5", "max_wait_s", 2.5),
    "OLLAMA_GPU_OVERHEAD": ("512MiB", "gpu_overhead_bytes", 512 * 1024**2),
    "PADDOCK_PROFILE_S": ("1.5", "profile_s", 1.5),
    "PADDOCK_CACHE_LAYOUT": ("split", "cache_layout", "split"),
    "PADDOCK_CACHE_SHELF": ("64MiB", "shelf_bytes", 64 * 1024**2),
    "PADDOCK_DRAFT_MODELS": ("a:8b=b:1b", "draft_models", {"a:8b": "b:1b"}),
    "OLLAMA_LOAD_TIMEOUT": ("6m", "load_timeout_s", 360),
}


def test_every_setting_of_the_pool_can_be_set(tmp_path: Path) -> None:
    settings = read(tmp_path, **{name: text for name, (text, _, _) in POOL.items()})
    expected: dict[str, Any] = {field: value for _, field, value in POOL.values()}
    assert settings.pool == PoolSettings(cache_dir=tmp_path / ".paddock/cache", **expected)


def test_readers_elsewhere_are_encrypted_or_on_this_machine(tmp_path: Path) -> None:
    for url in (
        "tls://scheduler:8786",
        "tcp://127.0.0.1:8786",
        "tcp://localhost:1",
        "tcp://[::1]:1",
    ):
        assert read(tmp_path, PADDOCK_READERS=url).readers_url == url
    odd = ("scheduler:8786", "tls://scheduler", "http://scheduler:1", "tls://a@b:1", "tls://a:1/x",
           "inproc://1/2:3", "ucx://gpu:1", "tls://a b:1")  # fmt: skip
    for url in odd:
        with pytest.raises(SettingsError, match="is not the address of a Dask scheduler"):
            read(tmp_path, PADDOCK_READERS=url)
    for url in (
        "tcp://scheduler:8786",
        "tcp://10.0.0.1:1",
        "tcp://0.0.0.0:1",
        "tcp://127.evil.example:1",
    ):
        with pytest.raises(SettingsError, match=r"can run code as you\.\n  Use 'tls://' with cert"):
            read(tmp_path, PADDOCK_READERS=url)
    assert "readers" not in BESIDE_A_PIPELINE  # a pipeline from elsewhere names no cluster


def test_no_setting_of_the_service_is_without_a_name() -> None:
    named = {name.field.removeprefix("service.") for name in SETTING_SPECS.values()}
    own = {*ServiceSettings.__struct_fields__}
    assert own - named == {"host", "port"}  # the address has them


def test_ollamas_zero_means_decide_yourself(tmp_path: Path) -> None:
    settings = read(
        tmp_path, OLLAMA_NUM_PARALLEL="0", OLLAMA_MAX_LOADED_MODELS="0", OLLAMA_CONTEXT_LENGTH="0"
    )
    assert settings.pool.num_parallel is None
    assert settings.pool.max_loaded_models == PoolSettings().max_loaded_models
    assert settings.pool.n_ctx_tokens is None


def test_an_empty_variable_counts_as_none(tmp_path: Path) -> None:
    assert read(tmp_path, PADDOCK_KEEP_ALIVE="", OLLAMA_MODELS=" ") == read(tmp_path)


def test_a_folder_in_a_file_is_relative_to_that_file(tmp_path: Path) -> None:
    toml(tmp_path / ".config/paddock", 'models = "models"\nhome = "~/state"')
    settings = read(tmp_path)
    assert settings.pool.models_dir == tmp_path / ".config/paddock/models"
    assert settings.state_dir == tmp_path / "state"


def test_it_is_known_where_a_setting_came_from(tmp_path: Path) -> None:
    file = toml(tmp_path / "pipeline", "max_queue = 7")
    settings = read(tmp_path, PADDOCK_NUM_THREAD="2")
    assert settings.origins == {
        "num_thread": "PADDOCK_NUM_THREAD",
        "max_queue": f"{file}: max_queue",
    }


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        (".config/paddock", "num_parallel = true", "num_parallel: True is not a whole number of 1 "
            "or more.\n  Give a number such as 4, or 'auto'."),
        ("pipeline", "keep_alive: 5m", "this is not TOML: Expected '=' after a key in a key/value "
            "pair (at line 1, column 11).\n  Correct the file."),
    ],
)  # fmt: skip
def test_a_bad_value_and_what_is_not_toml_are_named_with_the_file(
    tmp_path: Path, place: str, text: str, said: str
) -> None:
    file = toml(tmp_path / place, text)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{file}: {said}"


def test_an_unknown_name_in_a_file_is_told_with_the_nearest_known_one(tmp_path: Path) -> None:
    file = toml(tmp_path / "pipeline", "keep_alve = 3")
    with pytest.raises(SettingsError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{file}: setting 'keep_alve' is not known.\n  Known: ")
    assert str(caught.value).endswith("Did you mean 'keep_alive'?")


def test_a_file_next_to_a_pipeline_sets_nothing_that_reaches_further(tmp_path: Path) -> None:
    text = 'max_queue = 7\nledger = "postgresql://db.example/x"\nhost = "gpu.example"\n'
    file = toml(tmp_path / "pipeline", text)
    with pytest.raises(SettingsError) as caught:
        read(tmp_path)
    assert str(caught.value) == (
        f"{file}: 'ledger' and 'host' cannot be set in a file beside a pipeline, which may come "
        f"from a stranger.\n"
        f"  Move them to {tmp_path / '.config/paddock/paddock.toml'}, or set PADDOCK_LEDGER and "
        f"PADDOCK_HOST.\n"
        f"  Beside a pipeline these count: {', '.join(sorted(BESIDE_A_PIPELINE))}."
    )


@pytest.mark.parametrize("name", sorted(SETTING_SPECS.keys() - BESIDE_A_PIPELINE))
def test_a_setting_that_is_not_listed_is_refused_next_to_a_pipeline(
    name: str, tmp_path: Path
) -> None:
    toml(tmp_path / "pipeline", f'{name} = "x"')
    with pytest.raises(SettingsError, match=f"'{name}' cannot be set in a file beside a pipeline"):
        read(tmp_path)


def test_what_sends_texts_opens_doors_or_grants_is_not_among_the_settings_of_a_folder() -> None:
    far = {"host", "origins", "api_keys", "api_key", "insecure", "trusted_hosts", "pool",
           "pool_key", "allow", "ledger", "up_host", "smtp", "mail_from", "home",
           "models", "debug", "nohistory", "keep_tracking", "max_runs"}  # fmt: skip
    assert not far & BESIDE_A_PIPELINE
    assert SETTING_SPECS.keys() >= BESIDE_A_PIPELINE


def test_what_the_person_allows_comes_from_their_own_file_or_the_environment(
    tmp_path: Path,
) -> None:
    toml(tmp_path / ".config" / "paddock", 'allow = ["network"]')
    assert read(tmp_path).allow == {"network"}
    assert read(tmp_path, PADDOCK_ALLOW="run,secrets").allow == {"run", "secrets"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUM_PARALLEL", "-1"),
        ("MAX_QUEUE", "0"),
        ("MAX_LOADED_MODELS", "many"),
        ("CONTEXT_LENGTH", "16kk"),
        ("FLASH_ATTENTION", "maybe"),
        ("KV_CACHE_TYPE", "q1"),
        ("NUM_GPU", "-2"),
        ("MAIN_GPU", "-1"),
        ("PROFILE_S", "soon"),
        ("DEBUG", "perhaps"),
        ("KEEP_ALIVE", "5 parsecs"),
        ("HOST", "localhost:99999"),
        ("HOST", "ftp://localhost"),
        ("HOST", "[::1"),
        ("HOST", "a:b:c"),
        ("HOST", "user@host"),
        ("RATE", "fast"),
        ("INSECURE", "perhaps"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_variable(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, **{f"PADDOCK_{name}": value})
    assert caught.value.origin == f"PADDOCK_{name}"
    assert repr(value) in caught.value.problem
