import json
from pathlib import Path

import pytest

from paddock.runner.cli.setting_rows import setting_rows, settings_table
from paddock.runner.config.setting_specs import SETTING_SPECS
from paddock.runner.settings import read_settings
from tests.runner.cli.commands.shell import invoke


def shown(tmp_path: Path, **environ: str) -> dict[str, tuple[str, str]]:
    text = settings_table(setting_rows(read_settings(environ=environ, home=tmp_path)))
    lines = (line.split("   ") for line in text.splitlines()[1:])
    cells = ([cell.strip() for cell in line if cell.strip()] for line in lines)
    return {name: (value, origin) for name, value, origin in cells}


def test_every_setting_is_shown_with_its_value_and_its_origin(tmp_path: Path) -> None:
    listed = shown(tmp_path, PADDOCK_KEEP_ALIVE="1h", OLLAMA_HOST="0.0.0.0", OLLAMA_ORIGINS="a://*")
    assert set(listed) == set(SETTING_SPECS)
    assert listed["keep_alive"] == ("3600", "PADDOCK_KEEP_ALIVE")
    assert listed["host"] == ("http://0.0.0.0:11434", "OLLAMA_HOST")
    assert listed["origins"] == ("a://*", "OLLAMA_ORIGINS")
    assert listed["num_parallel"] == ("auto", "default")
    assert listed["rate"] == ("none", "default")
    assert listed["models"] == (str(tmp_path / ".paddock/models"), "default")


def test_times_sizes_and_addresses_are_shown_as_the_documentation_has_them(tmp_path: Path) -> None:
    values = {name: value for name, (value, _) in shown(tmp_path).items()}
    assert (values["keep_runs"], values["keep_calls"], values["keep_tracking"]) == (
        "90d",
        "180d",
        "14d",
    )
    assert (values["cache_shelf"], values["max_body"], values["max_ledger"]) == (
        "auto",
        "64MiB",
        "0",
    )
    assert (values["up_host"], values["split_mode"]) == ("http://127.0.0.1:11436", "auto")


def test_no_secret_is_shown(tmp_path: Path) -> None:
    settings = read_settings(environ={"PADDOCK_API_KEY": "hush"}, home=tmp_path)
    rows = setting_rows(settings)
    assert "hush" not in settings_table(rows) + repr(rows)
    assert next(row for row in rows if row.name == "api_key").value == "(set, not shown)"


def test_a_machine_gets_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paddock.toml").write_text("max_queue = 7\nnum_batch = 60")
    settings = json.loads(invoke("config", "--json").stdout)["settings"]
    assert settings["max_queue"] == {"value": 7, "from": f"{tmp_path / 'paddock.toml'}: max_queue"}
    assert settings["num_batch"]["value"] == 60
    assert settings["flash_attention"] == {"value": "auto", "from": "default"}
