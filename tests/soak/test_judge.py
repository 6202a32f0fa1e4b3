"""The judge is judged first: it finds what is lost, torn or repeated, and excuses no more."""

from tests.soak.judge import GRACE_S, Arrival, Kill, Mark, Verdict, table, verdict

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


def test_what_has_its_output_is_done() -> None:
    said = judged(MARK)
    assert (said.done, said.lost, said.repeated, said.delays_s) == (1, (), (), (2.0,))
    assert said.is_good


def test_without_output_or_with_that_of_an_older_version_it_is_lost() -> None:
    assert judged(MARK, outputs={}).lost == (A,)
    assert judged(MARK, outputs={("p", "a.txt"): "older"}).lost == (A,)
    assert judged(MARK, outputs={("p", "a.txt"): "torn"}).lost == (A,)


def test_a_broken_file_must_be_quarantined() -> None:
    broken = Arrival("p", "b.pdf", "x", 10.0, is_broken=True)
    assert judged(arrivals=(broken,)).lost == (broken,)
    said = judged(arrivals=(broken,), quarantined=frozenset({("p", "b.pdf")}))
    assert (said.quarantined, said.is_good) == (1, True)


def test_a_good_file_in_quarantine_is_lost() -> None:
    said = judged(MARK, outputs={}, quarantined=frozenset({("p", "a.txt")}))
    assert said.lost == (A,)


def test_working_twice_on_a_version_is_repeating() -> None:
    said = judged(MARK, at(20.0, pid=8))
    assert said.repeated == (at(20.0, pid=8),)
    assert not said.is_good


def test_a_kill_in_its_middle_excuses_a_repetition() -> None:
    said = judged(MARK, at(20.0, pid=8), kills=(Kill(12.5, 7),))
    assert (said.repeated, said.again) == ((), 1)


def test_a_kill_of_another_process_or_long_after_excuses_nothing() -> None:
    for kill in (Kill(12.5, 9), Kill(12.0 + GRACE_S + 0.1, 7), Kill(11.9, 7)):
        assert len(judged(MARK, at(20.0, pid=8), kills=(kill,)).repeated) == 1


def test_another_version_is_no_repetition() -> None:
    said = judged(at(11.0, sha256="draft"), MARK)
    assert (said.repeated, said.superseded) == ((), 1)


def test_the_table_is_markdown() -> None:
    said = table(judged(MARK, at(20.0, pid=8)), {"killed": "1 run"})
    assert said.splitlines()[:2] == ["| | |", "|---|--:|"]
    assert "| repeated | 1 |" in said
    assert "| killed | 1 run |" in said
