"""Lay out the models on a machine, as a table and as objects for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.models import ModelFinder
from paddock.engine.settings import PoolSettings
from paddock.engine.store.cards import Card, cards
from paddock.runner.display import console

if TYPE_CHECKING:
    from paddock.runner.client import Client

_ID_CHARS = 12  # of the digest, as `ollama list` has it


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model on this machine, or on that of a service."""

    name: str
    digest: str
    """Of its manifest, as with Ollama; of its file where it has none."""
    size_bytes: int
    role: str
    modified_at: datetime | None = None
    origin: str = ""
    path: str = ""
    """Empty: it is a service's."""
    tuned: str = ""
    """Format of the copy that serves in its place."""

    def as_json(self) -> dict[str, Any]:
        """Give the object of `list --json`."""
        return {
            "name": self.name,
            "digest": self.digest,
            "size": self.size_bytes,
            **({"modified": self.modified_at.isoformat()} if self.modified_at else {}),
            "role": self.role,
            **({"from": self.origin, "path": self.path} if self.path else {}),
            **({"tuned": self.tuned} if self.tuned else {}),
        }


def models(pool: PoolSettings) -> tuple[ModelRow, ...]:
    """List the models that a name can mean here; of one name, the one that would be used."""
    finder = ModelFinder(pool.models_dir, pool.cache_dir)
    rows = (_row(finder, card) for card in cards(finder))
    return tuple(sorted(rows, key=lambda row: row.name))


def _row(finder: ModelFinder, card: Card) -> ModelRow:
    copy = finder.tuned.find(finder.files.digest(Path(card.path)))
    return ModelRow(
        card.name,
        card.digest,
        card.size_bytes,
        "embed" if "embedding" in card.capabilities else "chat",
        card.modified_at,
        card.origin,
        card.path,
        copy.label if copy is not None else "",
    )


def models_of(client: Client) -> tuple[ModelRow, ...]:
    """List the models of a service."""
    with client:
        told = client.get("/api/tags").get("models") or []
    rows = (
        ModelRow(
            str(one.get("name", "")),
            str(one.get("digest", "")),
            int(one.get("size") or 0),
            "embed" if "embedding" in (one.get("capabilities") or ()) else "chat",
            _moment(str(one.get("modified_at", ""))),
        )
        for one in told
    )
    return tuple(sorted(rows, key=lambda row: row.name))


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def models_table(rows: Sequence[ModelRow], now: datetime | None = None) -> str:
    """Lay models out as `ollama list` does, with where they come from where that is known."""
    now = now or datetime.now(UTC)
    head = ("NAME", "ID", "SIZE", "MODIFIED", "ROLE", "FROM")
    body = [
        (
            row.name,
            row.digest[:_ID_CHARS],
            console.size(row.size_bytes),
            _ago(row.modified_at, now),
            row.role,
            _from(row),
        )
        for row in rows
    ]
    n = len(head) if any(row.path for row in rows) else len(head) - 1
    return console.table([one[:n] for one in (head, *body)])


def _ago(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else console.ago((now - moment).total_seconds())


def _from(row: ModelRow) -> str:
    origin = "store" if row.origin == "store" else f"{row.origin} ({Path(row.path).name})"
    return f"{origin}, tuned: {row.tuned}" if row.tuned else origin
