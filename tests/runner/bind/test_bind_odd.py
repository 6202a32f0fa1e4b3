"""Whatever stands in a pipeline, its author gets faults with places, never a traceback."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddock.pipelines import model, yaml_source
from paddock.pipelines import plan as plans
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.bind import bind
from tests.pipelines.test_model import WHOLE

SOUND: dict[str, Any] = yaml_source.parse_yaml(
    WHOLE.replace("summary.output", "summary.text"), "sound.yaml"
).data
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        [
            *("{{ x }}", "steps.docs.files", "x in y", "each", "docs", "{{ steps.each.results }}"),
            *([], {}, [[]], {"file": "x"}, {"file": {}}, [None], {"": 1}, "\0", "../.."),
        ]
    ),
    st.dictionaries(st.text(max_size=4), st.none(), max_size=2),
)  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = data.items() if isinstance(data, dict) else enumerate(data)
    found: list[tuple[Any, ...]] = []
    for name, item in children:
        found.append((*path, name))
        if isinstance(item, dict | list):
            found += places(item, (*path, name))
    return found


PLACES = places(SOUND)


def check(data: Any) -> PipelineError | None:
    document = yaml_source.parse_yaml(json.dumps(data), "odd.yaml")
    try:
        made = plans.plan_with_faults(model.parse_pipeline(document))
        bind(made, {}, cwd=Path("/nowhere"), default_models={"chat": "m", "embed": "v"})
    except PipelineError as error:
        return error
    return None


def test_the_sound_one_is_sound() -> None:
    assert check(SOUND) is None


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=3), st.booleans())
def test_odd_values_and_missing_keys_are_faults_with_places(
    changes: list[tuple[tuple[Any, ...], Any]], is_removed: bool
) -> None:
    data = json.loads(json.dumps(SOUND))
    for path, odd in changes:
        owner = data
        for name in path[:-1]:
            owner = owner[name] if _has(owner, name) else None
        if not _has(owner, path[-1]):
            continue
        if is_removed:
            del owner[path[-1]]
        else:
            owner[path[-1]] = odd
    error = check(data)
    for fault in error.faults if error else ():
        assert fault.message.endswith(".")
        assert fault.mark is not None


def _has(owner: Any, name: Any) -> bool:
    if isinstance(owner, list):
        return isinstance(name, int) and name < len(owner)
    return isinstance(owner, dict) and name in owner
