from typing import Any

import pytest

from paddock.pipelines.quantities import (
    parse_keep_alive,
    parse_seconds,
    parse_size_bytes,
    parse_tokens,
)


def test_quantities_are_read_as_people_write_them() -> None:
    assert [parse_seconds(text) for text in ("300ms", "30s", "5m", "2h", "1d", "1.5s")] == [
        *(0.3, 30, 300, 7200, 86400, 1.5)
    ]
    assert [parse_size_bytes(text) for text in ("512MiB", "2GiB", "10B", 7)] == [
        2**29,
        2**31,
        10,
        7,
    ]
    assert [parse_tokens(text) for text in ("16k", 2048, "2048")] == [16384, 2048, 2048]
    assert [parse_keep_alive(text) for text in ("15m", 0, -1)] == [900, 0, -1]


@pytest.mark.parametrize("text", ["5", 5, "5x", "s", "-5s", "", None, True, "1e9s", "٣s", [1]])
def test_anything_else_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a duration such as 300ms, 30s, 5m, 2h or 1d"):
        parse_seconds(text)
