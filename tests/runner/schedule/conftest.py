"""Whose connection a call over an in-process transport comes by."""

import os
from collections.abc import Callable

import pytest

from paddock.engine.system import socket_owners


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return what sets whose connection requests come by: these have none of their own."""

    def set_owner(owner: int | None) -> None:
        monkeypatch.setattr(socket_owners, "client_owner", lambda client, server: owner)

    set_owner(os.getuid())
    return set_owner
