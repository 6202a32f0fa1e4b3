"""The account of a mailbox as `files.scan` takes it; what speaks with its server comes later."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from paddock.engine.system import processes
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Params
from paddock.steps.paths import printable

from .. import sources
from .mirror import Mirror, SourceRefused

_TOKEN_S = 60.0
_MOST_TOKEN_BYTES = 64 * 1024


class Account(Params):
    """A folder of an IMAP account."""

    host: str = Field(min_length=1, description="The server.", examples=["imap.example.org"])
    port: int = Field(default=993, ge=1, le=65_535, description="Of the server.")
    tls: Literal["on", "starttls", "off"] = Field(
        default="on", description="`off` only where the server is on this machine."
    )
    user: str = Field(min_length=1, description="Whose mails.")
    password: str | None = Field(default=None, description="By a secret.")
    token: list[str] | None = Field(
        default=None,
        min_length=1,
        description="A command that prints an OAuth token (XOAUTH2), in place of a password.",
    )
    folder: str = Field(default="INBOX", min_length=1, description="On the server.")
    since: date | None = Field(default=None, description="Only mails that came since that day.")
    max_bytes: SizeBytes = Field(
        default=64 * 1024**2, description="Larger mails are not fetched, with a note."
    )
    keeps: SizeBytes = Field(
        default=10 * 1024**3, description="How much its copies may have; others wait, with a note."
    )
    flag: str | None = Field(
        default=None,
        pattern=r"^(\\(Seen|Flagged|Answered)|[A-Za-z0-9_$-]+)$",
        description="The flag of a mail once its outputs are recorded.",
        examples=["paddock", "\\Seen"],
    )
    move: str | None = Field(
        default=None, min_length=1, description="The folder that it is moved into then."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.password is None) == (self.token is None):
            raise ValueError("give one of `password` and `token`")
        if self.flag and self.move:
            raise ValueError("give one of `flag` and `move`")
        return self

    @property
    def name(self) -> str:
        return printable(f"'{self.folder}' of {self.user} at {self.host}")

    def mirror(self, folder: Path, credential: str) -> Mirror:
        opens = partial(sources.open_mailbox, self, credential)
        return Mirror(folder, opens, self.name, self.max_bytes, self.keeps)

    async def credential(self, folder: Path) -> str:
        """Return the password, or the token that its command prints.

        Raises:
            SourceRefused: it prints none.
        """
        if self.token is None:
            return self.password or ""
        token, environ = b"", processes.program_environ({}, os.environ)
        with suppress(OSError, ValueError, TimeoutError, processes.OutputTooLarge):
            async with asyncio.timeout(_TOKEN_S):
                ended = await processes.run(
                    self.token, cwd=folder, environ=environ, most_bytes=_MOST_TOKEN_BYTES
                )
            token = ended.stdout.strip() if ended.code == 0 else b""
        if not (token.isascii() and token.decode().isprintable() and token):
            raise SourceRefused("is not asked: the command of `token` prints none")
        return token.decode()
