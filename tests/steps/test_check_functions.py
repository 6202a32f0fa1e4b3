"""Check functions of other packages stand next to the language's own, and a broken one is told."""

from importlib.metadata import EntryPoint

import pytest

from paddock.steps import registry
from paddock.steps.plugins import CHECK_GROUP
from paddock.steps.registry import CHECK_FUNCTIONS, BrokenCheck


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "sorted_by": EntryPoint("sorted_by", "builtins:sorted", CHECK_GROUP),
        "words": EntryPoint("words", "builtins:len", CHECK_GROUP),
        "gone": EntryPoint("gone", "no_such_package:check", CHECK_GROUP),
        "number": EntryPoint("number", "math:pi", CHECK_GROUP),
    }
    monkeypatch.setattr(
        registry, "plugins", lambda group: {name: (one,) for name, one in found.items()}
    )


@pytest.mark.usefixtures("plugins")
def test_functions_of_other_packages_are_found_and_ours_go_first() -> None:
    assert CHECK_FUNCTIONS["sorted_by"] is sorted
    assert CHECK_FUNCTIONS["words"] is not len
    assert {"sorted_by", "grounded", "gone"} <= set(CHECK_FUNCTIONS)
    assert len(CHECK_FUNCTIONS) == len(set(CHECK_FUNCTIONS))
    assert registry.check_package("words") == "paddock-llm"
    assert registry.check_package("nothing") == ""


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", "check function 'gone' of package 'unknown' cannot be used: ModuleNotFoundError: "
         "No module named 'no_such_package'. Update or remove 'unknown'."),
        ("number",
         "check function 'number' of package 'unknown' cannot be used: math:pi is no function. "
         "Update or remove 'unknown'."),
    ],
)  # fmt: skip
def test_a_broken_function_names_its_package(name: str, sentence: str) -> None:
    with pytest.raises(BrokenCheck) as caught:
        CHECK_FUNCTIONS[name]
    assert str(caught.value) == sentence
