"""What is wrong with a pipeline: every fault of its text, or the one for which it is refused."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_without_inputs


def faults_of(text: str, file: Path = Path("p.yaml")) -> tuple[Fault, ...]:
    """Return what a check of a pipeline's text finds; the file need not be there."""
    try:
        bind_without_inputs(read_plan(file, text))
    except PipelineError as error:
        return tuple(error.faults)
    return ()


def sentences(faults: Iterable[Fault]) -> list[str]:
    """Return each fault's message with its remedy."""
    return [f"{fault.message} {fault.remedy}".strip() for fault in faults]


def fault_of(act: Callable[[], object]) -> Fault:
    """Return the only fault for which something is refused."""
    with pytest.raises(PipelineError) as caught:
        act()
    (fault,) = caught.value.faults
    return fault
