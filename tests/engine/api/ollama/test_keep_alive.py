"""`keep_alive`: numbers are seconds, texts are Go's durations."""

from typing import Any

import pytest

from paddock.engine.api.ollama.keep_alive import read_keep_alive


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0.0), (300, 300.0), (0.5, 0.5), (-1, -1.0), (-0.01, -1.0), ("0", 0.0),
        ("5m", 300.0), ("1h30m", 5400.0), ("300ms", 0.3), ("-1m", -1.0), ("1.5h", 5400.0),
        (".5s", 0.5), ("+2s", 2.0), ("-0", 0.0), ("24h0m0s", 86400.0), ("100us", 0.0001),
        ("100\u00b5s", 0.0001), ("100\u03bcs", 0.0001), (10**300, -1.0),
        ("9999999h", -1.0), (1e300, -1.0),
    ],
)  # fmt: skip
def test_numbers_are_seconds_and_texts_are_durations(value: Any, seconds: float | None) -> None:
    assert read_keep_alive(value) == pytest.approx(seconds)
