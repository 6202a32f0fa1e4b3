import time

import pytest
from jinja2.utils import Namespace

from paddock.engine.system.template_limits import (
    MAX_VALUES,
    ProcessorTime,
    TemplateLimitExceeded,
    TemplateMeter,
    check_values,
)


def test_a_rendering_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = TemplateMeter()
    now, used = time.monotonic(), time.thread_time()
    monkeypatch.setattr(time, "monotonic", lambda: now + 4)
    meter.check()  # the machine stood still for 4 s, and the template cannot be blamed
    monkeypatch.setattr(time, "monotonic", lambda: now + 8)
    monkeypatch.setattr(time, "thread_time", lambda: used + 4)
    with pytest.raises(TemplateLimitExceeded, match="it takes longer than 3 s"):
        meter.check()


def test_waiting_uses_no_processor_time() -> None:
    limit = ProcessorTime(0.05)
    time.sleep(0.2)
    assert not limit.is_over()
    while not limit.is_over():
        pass


def test_shared_values_count_each_time() -> None:
    value: list[object] = [1]
    for _ in range(12):
        value = [value, value]
    assert check_values(value) == 2**13 - 1 + 2**12
    for _ in range(12):
        value = [value, value]
    with pytest.raises(TemplateLimitExceeded, match=f"more than {MAX_VALUES:,} values"):
        TemplateMeter().made(value)


def test_forbidden_values_are_refused_wherever_they_are() -> None:
    with pytest.raises(TemplateLimitExceeded, match="a Namespace cannot be part of a value"):
        check_values([{"a": [Namespace()]}])
