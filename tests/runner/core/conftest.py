"""Buckets that documents come from and outputs are sent to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.buckets import Place, place_or_skip


@pytest.fixture(params=["s3", "sftp"])
def there(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    with place_or_skip(request.param, tmp_path, monkeypatch) as made:
        yield made
