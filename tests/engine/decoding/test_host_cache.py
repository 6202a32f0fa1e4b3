"""What is kept outside the cache: conversations stay, documents of jobs make way."""

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.decoding.host_cache import HostCache


def tokens(kind: int, n: int) -> Tokens:
    return np.full(n, kind, np.int32)


def test_entries_of_jobs_go_before_those_of_conversations_and_never_displace_one() -> None:
    shelf = HostCache(100)
    chat, _ = shelf.put(tokens(1, 60))
    job, _ = shelf.put(tokens(2, 30), is_job=True)
    later_job, gone = shelf.put(tokens(3, 40), is_job=True)
    assert gone == (job,)
    assert shelf.put(tokens(4, 50), is_job=True) == (None, ())
    _, gone = shelf.put(tokens(5, 40))
    assert gone == (later_job,)
    _, gone = shelf.put(tokens(6, 20))
    assert gone == (chat,)
    assert shelf.n_tokens == 60


def test_an_entry_that_continues_another_takes_its_place() -> None:
    shelf = HostCache(100)
    first, _ = shelf.put(tokens(1, 60))
    second, gone = shelf.put(tokens(1, 90))
    assert gone == (first,)
    assert shelf.best(tokens(1, 80)) == (second, 80)


def test_a_spared_entry_stays_even_if_nothing_else_can_make_room() -> None:
    shelf = HostCache(100)
    first, _ = shelf.put(tokens(1, 60))
    second, _ = shelf.put(tokens(2, 40))
    assert first is not None
    assert shelf.put(tokens(3, 50), spare=first) == (None, ())
    assert shelf.put(tokens(3, 30), spare=first)[1] == (second,)
    assert shelf.put(tokens(1, 70), spare=first) == (None, ()), "although it continues that one"
    assert shelf.best(tokens(1, 80)) == (first, 60)


def test_an_emptied_cache_remembers_no_entries_of_jobs() -> None:
    shelf = HostCache(100)
    shelf.put(tokens(1, 60), is_job=True)
    shelf.clear()
    assert (len(shelf), shelf.n_tokens, len(shelf._jobs)) == (0, 0, 0)
