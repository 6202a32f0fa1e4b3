from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from paddock.steps.python_step import step_of
from paddock.steps.tools.python_files import FunctionNotFound

FILE = '''
from typing import Annotated, Literal, Optional

raise SystemExit("nothing of this is run")

def clean(text: str, case: Literal["lower", "upper"] = "lower", times: "int | None" = 1, *,
          tags: list[str] = [], limit: Annotated[float, "x"] = 6*1, o: Optional["str"] = None):
    """Clean a text.

    Args:
        text: What is cleaned.
    """

async def late(json: dict[str, int], x): ...

def star(*texts): ...
def stars(**texts): ...
def only(x, /): ...
def taken(one_of): ...
def hidden(_x): ...
def model(model_dump): ...
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_steps.py").write_text(FILE)
    (tmp_path / "broken.py").write_text("def x(:\n")
    return tmp_path


def test_parameters_are_read_from_the_text_and_nothing_runs(folder: Path) -> None:
    kind = step_of("./my_steps.py:clean", folder)
    fields = kind.params.model_fields
    hints: dict[str, Any] = {name: field.annotation for name, field in fields.items()}
    assert hints.pop("case") == Literal["lower", "upper"]
    assert set(get_args(hints.pop("times"))) == {int, type(None)}
    assert set(get_args(hints.pop("o"))) == {str, type(None)}
    assert hints == {"text": str, "tags": list[str], "limit": float}
    assert fields["text"].is_required() and not fields["tags"].is_required()
    assert fields["text"].description == "What is cleaned."
    assert kind.__doc__ == "Clean a text."
    assert kind.params(text="a").model_dump(exclude_unset=True) == {"text": "a"}
    assert set(step_of("my_steps.py:late", folder).params.model_fields) == {"json", "x"}


def test_another_content_is_another_version(folder: Path) -> None:
    before = step_of("my_steps.py:clean", folder).version
    assert step_of("my_steps.py:clean", folder).version == before
    (folder / "my_steps.py").write_text(FILE + "\n")
    assert step_of("my_steps.py:clean", folder).version != before


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        ("nix.py:a", "there is no file 'nix.py'. Paths are relative to the YAML; create or "
         "correct it."),
        ("broken.py:x", "the file 'broken.py' is not Python, line 1: invalid syntax."),
        ("my_steps.py:claen", "there is no function 'claen' in 'my_steps.py'. Known: 'clean', "
         "'late', 'star', 'stars', 'only', 'taken', 'hidden', 'model'. Did you mean 'clean'?"),
        ("my_steps.py:star", "the function 'star' takes `*texts`, but parameters of a step "
         "need names. Give each argument a name of its own."),
        ("my_steps.py:only", "the function 'only' takes `x`, but parameters of a step "
         "need names. Give each argument a name of its own."),
        ("my_steps.py:taken", "the argument 'one_of' of 'taken' has a reserved name. "
         "Rename it."),
        ("my_steps.py:model", "the argument 'model_dump' of 'model' has a reserved name. "
         "Rename it."),
    ],
)  # fmt: skip
def test_what_is_no_step_is_told(folder: Path, uses: str, told: str) -> None:
    with pytest.raises(FunctionNotFound) as caught:
        step_of(uses, folder)
    assert str(caught.value) == told
