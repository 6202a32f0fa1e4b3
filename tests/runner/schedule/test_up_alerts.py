"""A ledger that breaks under `paddock up` is told once, until it is mended."""

import asyncio
from pathlib import Path

from paddock.engine.settings import PoolSettings
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.up_alerts import LedgerHealth
from paddock.runner.settings import STATE_FOLDER, Settings

PIPELINE = """\
on: {webhook: [{path: /x, secret: hush}]}
steps: [{uses: prompt, with: {template: x}}]
"""


def opens(folder: Path, is_readonly: bool) -> Ledger:
    return Ledger(folder / STATE_FOLDER, is_readonly=is_readonly)


def post_of(folder: Path) -> TriggeredPipeline:
    folder.mkdir()
    triggered = read_triggered_pipeline(
        folder / "p.yaml", PIPELINE, Settings(PoolSettings(), folder)
    )
    assert triggered is not None
    return triggered


async def test_a_broken_ledger_is_told_once_and_forgotten_when_it_is_mended(tmp_path: Path) -> None:
    sound, broken = post_of(tmp_path / "sound"), post_of(tmp_path / "broken")
    with opens(tmp_path / "sound", False):
        pass
    alerts: list[tuple[str, str]] = []

    async def tell(pipeline: TriggeredPipeline, words: str) -> None:
        alerts.append((pipeline.file.parent.name, words))

    health = LedgerHealth(opens, tell, tmp_path / "home")
    await health.check_ledgers([sound, broken])
    assert health.faults == {}, "one that is not there yet is not broken"

    file = tmp_path / "broken" / STATE_FOLDER / "ledger.sqlite"
    file.parent.mkdir()
    file.write_bytes(b"no database " * 400)
    for _ in range(3):
        await health.check_ledgers([sound, broken])
    assert list(health.faults) == [tmp_path / "broken"]
    assert "the ledger cannot be read" in health.faults[tmp_path / "broken"]

    file.unlink()
    await health.check_ledgers([sound, broken])
    assert health.faults == {}
    file.write_bytes(b"no database " * 400)
    await health.check_ledgers([sound, broken])
    await health.check_ledgers([sound])
    assert health.faults == {}, "its pipeline is no longer in service"
    await asyncio.sleep(0)
    assert [name for name, _ in alerts] == ["broken", "broken"]
