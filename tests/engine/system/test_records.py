"""What our records add to msgspec's Structs."""

import pickle
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from paddock.engine.request import Message
from paddock.engine.system.records import SelectiveFields, Struct, asdict, field
from paddock.engine.system.server_address import ServerAddress
from paddock.runner.progress.item_states import ItemState


class Place(SelectiveFields, Struct, frozen=True):
    hidden = ("key",)
    uncompared = ("at", "key")

    path: Path
    at: float = 0.0
    key: str = ""


class Own(SelectiveFields, Struct, eq=False):
    hidden = ("value",)

    value: list[int] = field(default_factory=list)


def test_fields_that_are_not_compared_are_in_no_hash() -> None:
    place = Place(Path("a"), 1.0, "k")
    assert place == Place(Path("a"), 2.0) != Place(Path("b"))
    assert len({place, Place(Path("a"), 3.0)}) == 1
    assert Own() != Own()
    assert len({Own(), Own()}) == 2


def test_what_is_hidden_is_not_shown_by_rich_either() -> None:
    address = ServerAddress("http://127.0.0.1:80", key="hidden")
    assert "hidden" not in repr(address) + pretty_repr(address)
    assert repr(Own([1])) == "Own()"


def test_a_record_as_a_mapping_has_paths_and_enums_as_text() -> None:
    class Outer(Struct):
        place: Place
        states: tuple[ItemState, ...]
        raw: bytes

    plain = asdict(Outer(Place(Path("a/b")), (ItemState.DONE,), b"x"))
    place = {"path": "a/b", "at": 0.0, "key": ""}
    assert plain == {"place": place, "states": ("done",), "raw": b"x"}


def test_what_is_called_frozen_refuses_changes_and_can_be_sent_to_another_process() -> None:
    sent = Message("user", "Hello")
    with pytest.raises(AttributeError):
        sent.content = "Bye"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(sent)) == sent
