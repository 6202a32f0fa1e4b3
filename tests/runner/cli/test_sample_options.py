"""`--sample`, `--limit`, `--seed` and `--stratify`: what they mean, and which do not fit."""

from typing import Any

import pytest

from paddock.engine.system.item_samples import ItemSample
from paddock.runner.cli.arguments import PipelineFlags
from paddock.runner.cli.commands.run import RunFlags
from paddock.runner.cli.exit_status import CommandError


@pytest.mark.parametrize(
    ("given", "sample"),
    [
        ((None, None, None, None), None),
        ((50, None, None, None), ItemSample(50)),
        ((50, None, 7, "item.suffix"), ItemSample(50, 7, "item.suffix")),
        ((None, 5, None, None), ItemSample(5, is_first=True)),
    ],
)
def test_options_name_a_sample(given: Any, sample: ItemSample | None) -> None:
    assert PipelineFlags(*given).item_sample() == sample


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"sample": 2, "limit": 3},
            "`--sample` and `--limit` are both given.\n"
            "  `--sample` takes random items, `--limit` the first ones: leave one out.",
        ),
        ({"seed": 2}, "`--seed` belongs to `--sample`.\n  Add `--sample N`."),
        (
            {"stratify": "item.suffix", "limit": 2},
            "`--stratify` belongs to `--sample`.\n  Add `--sample N`.",
        ),
        (
            {"sample": 2, "prune": True},
            "`--sample` and `--prune` are both given.\n"
            "  `--prune` looks at all items, to remove what none of them makes: leave one out.",
        ),
        (
            {"limit": 2, "only": ["a.md"]},
            "`--limit` and `--only` are both given.\n  `--only` names the items: leave one out.",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_sentence(
    flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(CommandError) as caught:
        RunFlags(**flags).options()
    assert str(caught.value) == words
