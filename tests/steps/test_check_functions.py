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
        (
            "gone",
            "check function 'gone' of package 'unknown' cannot be used: ModuleNotFoundError: "
            "No module named 'no_such_package'. Update or remove 'unknown'.",
        ),
        (
            "number",
            "check function 'number' of package 'unknown' cannot be used: math:pi is no function. "
            "Update or remove 'unknown'.",
        ),
    ],
)
def test_a_broken_function_names_its_package(name: str, sentence: str) -> None:
    with pytest.raises(BrokenCheck) as caught:
        CHECK_FUNCTIONS[name]
    assert str(caught.value) == sentence


def test_the_remedy_of_a_broken_function_is_a_field_whatever_its_reason_says() -> None:
    broken = BrokenCheck("f", "pack", "ImportError: libx.so: cannot open. No such file")
    assert broken.message.endswith(
        "cannot be used: ImportError: libx.so: cannot open. No such file"
    )
    assert (broken.remedy, str(broken)) == (
        "Update or remove 'pack'.", f"{broken.message}. {broken.remedy}"
    )  # fmt: skip
