"""Models and steps as tables and objects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from paddock.engine.request import Role
from paddock.engine.settings import PoolSettings
from paddock.runner.commands import listing
from paddock.runner.commands.listing import ModelRow
from paddock.steps.step import Output, Params


class _Params(Params):
    root: str
    include: tuple[str, ...] = ("**/*",)
    newest: int | None = None
    by: str = Field("page", alias="per")


class _Output(Output):
    files: list[str]
    count: int


class _Count:
    """Count files under a root.

    More about it.
    """

    params: ClassVar = _Params
    output: ClassVar = _Output
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = True
    roles: ClassVar[frozenset[Role]] = frozenset()


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STORED = ModelRow(
    "qwen3:4b", "ab" * 32, 2_620_000_000, "chat", NOW - timedelta(hours=3), "store", "/m/blobs/ab"
)
BUNDLED = ModelRow(
    "all-minilm", "cd" * 32, 20_887_072, "embed", NOW - timedelta(days=40), "bundled", "/e/a.gguf"
)


def test_a_model_row_reads_as_with_ollama() -> None:
    assert listing.models_table([STORED, BUNDLED], NOW) == (
        "NAME         ID             SIZE     MODIFIED      ROLE    FROM\n"
        "qwen3:4b     abababababab   2.6 GB   3 hours ago   chat    store\n"
        "all-minilm   cdcdcdcdcdcd   21 MB    1 month ago   embed   bundled (a.gguf)"
    )


def test_of_a_services_models_it_is_not_told_where_they_lie() -> None:
    row = replace(STORED, origin="", path="")
    assert listing.models_table([row], NOW).splitlines()[0].split() == [
        *("NAME", "ID", "SIZE", "MODIFIED", "ROLE")
    ]
    assert set(row.as_json()) == {"name", "digest", "size", "modified", "role"}


def test_the_embedded_models_are_listed(tmp_path: Path) -> None:
    names = [
        row.name for row in listing.models(PoolSettings(models_dir=tmp_path, cache_dir=tmp_path))
    ]
    assert "all-minilm" in names
    assert names == sorted(names)


def test_a_step_is_told_with_needs_defaults_and_outputs() -> None:
    row = listing.step_row("count", _Count, "paddock-count")
    assert listing.steps_text([row]) == (
        "count  Count files under a root. [paddock-count]\n"
        "  needs  root\n"
        '  takes  include ["**/*"], newest, per "page"\n'
        "  gives  files, count"
    )
    assert row.as_json()["params"]["include"] == {
        "required": False,
        "default": ["**/*"],
        "schema": row.params[1].schema,
    }
    assert row.as_json()["outputs"] == ["files", "count"]
