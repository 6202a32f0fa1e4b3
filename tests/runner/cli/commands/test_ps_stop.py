from datetime import UTC, datetime

import pytest

from paddock.runner.cli import loaded_models

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_what_is_in_memory_reads_as_with_ollama() -> None:
    row = {
        "name": "qwen3:4b",
        "digest": "ab" * 32,
        "size": 4_000_000_000,
        "size_vram": 3_000_000_000,
        "context_length": 4096,
        "running": 3,
        "queue_depth": 2,
        "tokens_per_second": 41.23,
        "expires_at": "2026-11-20T12:05:00Z",
        "service": "background",
    }
    assert loaded_models.loaded_table([row], NOW) == (
        "NAME       ID             SIZE     PROCESSOR         CONTEXT   RUNNING   QUEUE   "
        "TOKENS/S   UNTIL      SERVICE\n"
        "qwen3:4b   abababababab   4.0 GB   25%/75% CPU/GPU   4096      3         2       "
        "41         in 5 min   background"
    )


@pytest.mark.parametrize(
    ("expires_at", "words"),
    [
        ("2318-01-01T00:00:00Z", "for ever"),
        ("2026-11-20T11:59:59Z", "soon"),
        ("2026-11-20T12:00:09.5Z", "in 9.5 s"),
        ("2026-11-20 12:01", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_when_a_model_goes_is_told(expires_at: str, words: str) -> None:
    assert loaded_models.until_text(expires_at, NOW) == words
