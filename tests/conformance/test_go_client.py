"""A program in Go, with `net/http` and `encoding/json` alone, against a live service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live import Live
from tests.waiting import PATIENCE_S

SOURCE = Path(__file__).parent / "go" / "main.go"
TRIED = ("chat", "stream", "structured", "tools", "embeddings", "errors", "cancel")

pytestmark = pytest.mark.skipif(
    shutil.which("go") is None,
    reason="NO GO HERE: install Debian's golang-go to try the service with Go's net/http",
)


def test_a_program_in_go_chats_streams_calls_tools_embeds_and_cancels(
    live: Live, tmp_path: Path
) -> None:
    program = tmp_path / "client"
    settings = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off", "CGO_ENABLED": "0"}
    subprocess.run(
        ["go", "build", "-o", str(program), str(SOURCE)],
        env=settings,
        check=True,
        timeout=PATIENCE_S,
    )

    ran = subprocess.run(
        [str(program), live.url], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert ran.stdout.splitlines() == [f"{name} ok" for name in TRIED]
    assert ran.returncode == 0
    live.until_idle()
