"""Models and steps as tables and objects."""

from __future__ import annotations

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


def test_a_model_row_reads_as_with_ollama() -> None:
    rows = [
        ModelRow("qwen3:4b", "ab" * 32, 2_620_000_000, "chat", "store", "/m/blobs/sha256-ab"),
        ModelRow("all-minilm", "cd" * 32, 20_887_072, "embed", "bundled", "/e/all-minilm.gguf"),
    ]
    assert listing.models_table(rows) == (
        "NAME         ID             SIZE     ROLE    FROM\n"
        "qwen3:4b     abababababab   2.6 GB   chat    store\n"
        "all-minilm   cdcdcdcdcdcd   21 MB    embed   bundled (all-minilm.gguf)"
    )


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
