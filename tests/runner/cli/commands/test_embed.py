import json
import math
from pathlib import Path

import pytest

from tests.live import VECTORS, Live
from tests.runner.cli.commands.shell import paddock_here as paddock


@pytest.fixture
def environ(live: Live, tmp_path: Path) -> dict[str, str]:
    return {"PADDOCK_HOST": live.url, "PADDOCK_HOME": str(tmp_path)}


def test_each_text_has_a_line(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    ended = paddock(
        "embed", VECTORS, "a cat", "a dog", "-f", "a.txt", environ=environ, cwd=tmp_path
    )
    assert ended.status == 0, ended.err
    cat, dog, file = (json.loads(line) for line in ended.out.splitlines())
    assert len(cat) == 384
    assert math.isclose(sum(x * x for x in cat), 1.0, rel_tol=1e-3)
    assert cat != dog
    assert len(file) == 384


def test_a_text_that_is_too_long_is_cut_only_if_that_is_asked_for(environ: dict[str, str]) -> None:
    long = "word " * 1000
    refused = paddock("embed", VECTORS, environ=environ, given=long)
    assert (refused.status, refused.out) == (1, "")
    assert "exceeds the context length" in refused.err
    assert paddock("embed", VECTORS, "--truncate", environ=environ, given=long).status == 0


def test_without_a_service_the_command_does_it_itself(tmp_path: Path) -> None:
    environ = {"PADDOCK_HOME": str(tmp_path), "PADDOCK_NUM_THREAD": "1"}
    ended = paddock("embed", VECTORS, "a cat", environ=environ)
    assert ended.status == 0, ended.err
    assert len(json.loads(ended.out)) == 384
