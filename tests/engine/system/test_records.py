"""Records are equal to the standard library's in all that a run can tell."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from rich.pretty import pretty_repr

from paddock.engine.request import Message
from paddock.engine.system import records
from paddock.engine.system.server_address import ServerAddress


def _classes(dataclass: Any) -> dict[str, Any]:
    """Return classes of each kind that the product has, made by one decorator."""
    field = dataclasses.field

    @dataclass(frozen=True, slots=True)
    class Point:
        """A place."""

        x: float
        y: float = 0
        name: str = field(default="", compare=False, repr=False)
        tags: dict[str, int] = field(default_factory=dict, hash=False)

    @dataclass(frozen=True, slots=True)
    class Named(Point):
        also: str = "!"

        def __str__(self) -> str:
            return self.also

    @dataclass(slots=True)
    class Bag:
        items: list[Any] = field(default_factory=list)

    @dataclass(slots=True, eq=False)
    class Own:
        value: int = 1

    @dataclass(frozen=True)
    class Odd:
        value: int

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "odd"

    @dataclass(order=True, slots=True, kw_only=True)
    class Ranked:
        rank: int = 0

    @dataclass(frozen=True)
    class Empty:
        pass

    return dict(locals())


def _told(dataclass: Any) -> list[Any]:
    c = _classes(dataclass)
    point = c["Point"]
    made = [point(1), point(1, 2, "a", {"t": 1}), point(0, 3), c["Named"](1), c["Bag"]([1]),
            c["Own"](), c["Odd"](1), c["Ranked"](rank=2), c["Empty"]()]  # fmt: skip
    bag = c["Bag"]()
    bag.items.append(bag)
    return [
        [repr(one) for one in made if not isinstance(one, c["Own"])],
        [[a == b for a in made] for b in [*made[:4], point(1, name="b"), point(1, 1), c["Odd"](1)]],
        [hash(point(1, name="b")) == hash(made[0]), hash(c["Odd"](1)), hash(point(1)) == hash(1)],
        [_has_hash(c[name]()) for name in ("Bag", "Ranked", "Empty", "Own")],
        c["Ranked"](rank=1) < c["Ranked"](rank=2),
        c["Own"]() == c["Own"](),
        repr(bag).count("Bag"),
        [dataclasses.asdict(one) for one in (made[1], made[3])],
        dataclasses.replace(made[1], x=5) == point(5, 2, "z", {"t": 1}),
        copy.deepcopy(made[1]) == made[1],
        [kind.__match_args__ for kind in (point, c["Named"], c["Ranked"])],
        [hasattr(one, "__dict__") for one in made],
        point.__doc__,
    ]


def _has_hash(one: Any) -> bool:
    try:
        return isinstance(hash(one), int)
    except TypeError:
        return False


def test_they_are_equal_shown_hashed_ordered_and_copied_as_those_of_the_library() -> None:
    assert _told(records.record) == _told(dataclasses.dataclass)


def test_what_is_called_frozen_refuses_changes_here() -> None:
    with pytest.raises(AttributeError):
        Message("user", "Hello").content = "Bye"  # type: ignore[misc]


def test_what_is_not_shown_is_not_shown_by_rich_either() -> None:
    address = ServerAddress("http://127.0.0.1:80", key="hidden")
    assert "hidden" not in repr(address) + pretty_repr(address)


def test_an_object_can_be_sent_to_another_process() -> None:
    sent = Message("user", "Hello")
    assert pickle.loads(pickle.dumps(sent)) == sent
