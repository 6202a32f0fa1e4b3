import random
from collections import Counter

import pytest

from paddock.runner.compare.label_rates import label_figures


def test_rare_labels_and_chance_count_in_the_figures_of_labels() -> None:
    pairs = [("ham", "ham")] * 95 + [("spam", "ham")] * 5
    figures = label_figures(pairs)
    assert figures.accuracy == 0.95
    assert figures.macro_f1.mean == pytest.approx((2 * 95 / 195) / 2)
    assert figures.kappa is not None
    assert figures.kappa.mean == 0
    assert figures.as_json()["confusion"] == [[95, 0], [5, 0]]
    assert label_figures([("a", "a")]).kappa is None


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("chance", [0.6, 0.95])
def test_the_bounds_of_macro_f1_and_kappa_hold_the_true_ones_in_95_of_100_draws(
    n: int, chance: float
) -> None:
    draw = random.Random(f"{n} {chance}")

    def pairs(n: int) -> list[tuple[str, str]]:
        golds = draw.choices("abc", weights=(5, 3, 2), k=n)
        return [(gold, gold if draw.random() < chance else draw.choice("abc")) for gold in golds]

    truth = label_figures(pairs(200_000))
    assert truth.kappa is not None
    n_within = Counter[str]()
    for _ in range(300):
        found = label_figures(pairs(n))
        assert found.kappa is not None
        n_within["f1"] += found.macro_f1.low <= truth.macro_f1.mean <= found.macro_f1.high
        n_within["kappa"] += found.kappa.low <= truth.kappa.mean <= found.kappa.high
    assert min(n_within.values()) >= 273, "95 % of 300, less three standard deviations"
