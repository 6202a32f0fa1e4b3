"""Where databases are in which items have rows: the account of one on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from paddock.steps.base import Params

JSON = "json"
SERVERS = Path("/postgresql:")
"""Below it the ledger knows tables of servers, as if they were files."""


class PostgresAccount(Params):
    """An account of a PostgreSQL server."""

    host: str = Field(min_length=1, description="The server, or the folder of its socket.")
    port: int = Field(default=5432, ge=1, le=65_535, description="Of the server.")
    database: str = Field(min_length=1, pattern=r"^[^/]+$", description="On the server.")
    user: str = Field(min_length=1, description="Who writes.")
    password: str | None = Field(default=None, description="By a secret.")
    tls: Literal["on", "off"] = Field(
        default="on", description="`off` only where the server is on this machine."
    )
