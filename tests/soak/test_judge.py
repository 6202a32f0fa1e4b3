"""The judge is judged first: it finds what is lost, torn or repeated, and excuses no more."""

from tests.soak.judge import Arrival, Kill, Mark, Verdict, table, verdict

A = Arrival("p", "a.txt", "one", at=10.0)
MARK = Mark(at=12.0, pid=7, pipeline="p", path="a.txt", sha256="one")
DONE = {("p", "a.txt"): "one"}


def judged(
    *marks: Mark,
    arrivals: tuple[Arrival, ...] = (A,),
    kills: tuple[Kill, ...] = (),
    outputs: dict[tuple[str, str], str] | None = None,
    quarantined: frozenset[tuple[str, str]] = frozenset(),
) -> Verdict:
    outputs = DONE if outputs is None else outputs
    return verdict(arrivals, marks, kills, outputs, quarantined)


def at(at: float, pid: int = 7, sha256: str = "one") -> Mark:
    return Mark(at, pid, "p", "a.txt", sha256)


AGAIN = at(20.0, pid=8)


def test_what_is_done_lost_quarantined_and_repeated() -> None:
    said = judged(MARK)
    assert (said.done, said.delays_s, said.is_good) == (1, (2.0,), True)
    for outputs in ({}, {("p", "a.txt"): "older"}, {("p", "a.txt"): "torn"}):
        assert judged(MARK, outputs=outputs).lost == (A,)
    assert judged(MARK, outputs={}, quarantined=frozenset({("p", "a.txt")})).lost == (A,)
    broken = Arrival("p", "b.pdf", "x", 10.0, is_broken=True)
    assert judged(arrivals=(broken,)).lost == (broken,)
    said = judged(arrivals=(broken,), quarantined=frozenset({("p", "b.pdf")}))
    assert (said.quarantined, said.is_good) == (1, True)
    said = judged(at(11.0, sha256="draft"), MARK)
    assert (said.repeated, said.superseded) == ((), 1)
    said = judged(MARK, AGAIN)
    assert (said.repeated, said.is_good) == (((MARK, AGAIN),), False)
    assert "| repeated | 1 |" in table(said, {"killed": "1 run"})


def test_only_a_kill_in_its_middle_excuses_a_repetition() -> None:
    said = judged(MARK, AGAIN, kills=(Kill(12.5, 7),))
    assert (said.repeated, said.again) == ((), 1)
    recorded = {("p", "a.txt"): 12.1}
    for kill in (Kill(12.5, 9), Kill(12.5, 7, recorded), Kill(11.9, 7)):
        assert len(judged(MARK, AGAIN, kills=(kill,)).repeated) == 1
