"""What a dry run puts in place of files: no effect of the real ones is left."""

from __future__ import annotations

from paddock.runner.core.outputs.item_outputs import ItemOutputs
from paddock.runner.dry_run.dry_tools import DryOutputs

READS = {"takes_over", "owned", "known_sha256", "check_target", "filed_at"}


def test_each_method_of_an_items_outputs_is_without_effect_in_a_plan() -> None:
    effects = {name for name in vars(ItemOutputs) if not name.startswith("_")} - READS
    assert effects <= vars(DryOutputs).keys()
