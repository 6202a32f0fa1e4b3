from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from paddock.engine.settings import PoolSettings
from paddock.runner.cli import model_tables
from paddock.runner.cli.model_tables import ModelRow

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STORED = ModelRow(
    "qwen3:4b", "ab" * 32, 2_620_000_000, "chat", NOW - timedelta(hours=3), "store", "/m/blobs/ab"
)
BUNDLED = ModelRow(
    "all-minilm", "cd" * 32, 20_887_072, "embed", NOW - timedelta(days=40), "bundled", "/e/a.gguf"
)


def test_a_model_row_reads_as_with_ollama() -> None:
    assert model_tables.model_table([STORED, BUNDLED], NOW) == (
        "NAME         ID             SIZE     MODIFIED      ROLE    FROM\n"
        "qwen3:4b     abababababab   2.6 GB   3 hours ago   chat    store\n"
        "all-minilm   cdcdcdcdcdcd   21 MB    1 month ago   embed   bundled (a.gguf)"
    )


def test_of_a_services_models_it_is_not_told_where_they_lie() -> None:
    row = replace(STORED, origin="", path="")
    assert model_tables.model_table([row], NOW).splitlines()[0].split() == [
        *("NAME", "ID", "SIZE", "MODIFIED", "ROLE")
    ]
    assert set(row.as_json()) == {"name", "digest", "size", "modified", "role"}


def test_the_embedded_models_are_listed(tmp_path: Path) -> None:
    rows = model_tables.local_models(PoolSettings(models_dir=tmp_path, cache_dir=tmp_path))
    names = [row.name for row in rows]
    assert "all-minilm:latest" in names
    assert names == sorted(names)
    keys = {"name", "digest", "size", "modified", "role", "from", "path"}
    assert set(rows[0].as_json()) == keys
