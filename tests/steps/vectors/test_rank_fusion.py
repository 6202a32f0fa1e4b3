from paddock.steps.base import SearchHit
from paddock.steps.vectors.search import rank_fusion


def hit(source: str, score: float = 0.5) -> SearchHit:
    return SearchHit(source, score, source, source, "index", 0, None, None, ())


def names(hits: list[SearchHit]) -> list[str]:
    return [one.source for one in hits]


def test_what_both_orders_have_near_the_top_comes_first() -> None:
    both = rank_fusion([hit("a"), hit("b"), hit("c")], [hit("d"), hit("b"), hit("e")])
    assert names(both) == ["b", "a", "d", "c", "e"]
    assert both[0].score == round(2 / 62, 6)


def test_each_hit_comes_once_and_one_order_stays_as_it_is() -> None:
    assert names(rank_fusion([hit("b"), hit("a")], [hit("b"), hit("a")])) == ["b", "a"]
    assert names(rank_fusion([hit("z"), hit("a")], [])) == ["z", "a"]
