"""Where boxes lie and arrows go, for any pipeline: nothing overlaps, no arrow crosses a box."""

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import settings as examined
from hypothesis import strategies as st

from paddock.runner.render.graph_drawing import GAP_X, PlacedBox, layout_graph
from paddock.runner.render.graph_model import GraphBox


@st.composite
def pipelines(draw: st.DrawFn, depth: int = 1, name: str = "s") -> tuple[GraphBox, ...]:
    """Draw boxes in an order that works, some with a body."""
    boxes: list[GraphBox] = []
    for number in range(draw(st.integers(1, 8 if depth else 4))):
        before = [box.id for box in boxes]
        reads = draw(st.sets(st.sampled_from(before), max_size=4)) if before else set()
        own = f"{name}{number}"
        is_block = depth > 0 and draw(st.booleans())
        body = draw(pipelines(depth - 1, f"{own}_")) if is_block else ()
        kind = draw(st.sampled_from(["chat", "files.write", "doc in steps.docs.files" * 3]))
        boxes.append(
            GraphBox(own, own, kind, reads=tuple(sorted(reads)), body=body, is_block=is_block)
        )
    return tuple(boxes)


def overlap(box: PlacedBox, other: PlacedBox) -> bool:
    return (
        box.x < other.x + other.width
        and other.x < box.x + box.width
        and box.y < other.y + other.height
        and other.y < box.y + box.height
    )


@examined(max_examples=60, deadline=None)
@given(pipelines())
def test_boxes_do_not_overlap_and_lie_in_the_picture(boxes: tuple[GraphBox, ...]) -> None:
    picture = layout_graph(boxes)
    check_level(picture.boxes, 0, 0, picture.width, picture.height)


def check_level(
    boxes: tuple[PlacedBox, ...], x: float, y: float, width: float, height: float
) -> None:
    for box, other in combinations(boxes, 2):
        assert not overlap(box, other), (box.box.id, other.box.id)
    for box in boxes:
        assert box.x >= x - 0.01
        assert box.y >= y - 0.01
        assert box.x + box.width <= x + width + 0.01
        assert box.y + box.height <= y + height + 0.01
        check_level(box.body, box.x, box.y, box.width, box.height)


@examined(max_examples=60, deadline=None)
@given(pipelines(depth=0))
def test_every_arrow_goes_down_and_only_bends_where_no_box_lies(
    boxes: tuple[GraphBox, ...],
) -> None:
    picture = layout_graph(boxes)
    assert {(a.source, a.target) for a in picture.arrows} == {
        (source, box.id) for box in boxes for source in box.reads
    }
    for arrow in picture.arrows:
        for number, ((x, y), (to_x, to_y)) in enumerate(pairwise(arrow.points)):
            assert to_y >= y
            others = [p for p in picture.boxes if p.box.id not in (arrow.source, arrow.target)]
            if number % 2 == 0:
                assert x == to_x
                assert not any(inside(p, x, y, to_y) for p in others)
            else:
                assert not any(p.y < to_y and y < p.y + p.height for p in others)


def inside(box: PlacedBox, x: float, y: float, to_y: float) -> bool:
    is_beside = box.x - 0.01 < x < box.x + box.width + 0.01
    return is_beside and y < box.y + box.height and box.y < to_y


def test_a_chain_stands_below_one_another_and_siblings_side_by_side() -> None:
    boxes = (
        GraphBox("a", "a", "chat"),
        GraphBox("b", "b", "chat", reads=("a",)),
        GraphBox("c", "c", "chat", reads=("a",)),
    )
    first, left, right = layout_graph(boxes).boxes
    assert first.y + first.height < left.y == right.y
    assert left.x + left.width + GAP_X <= right.x + 0.01
    middle = (left.x + right.x + right.width) / 2
    assert abs(first.x + first.width / 2 - middle) < 1


def test_the_same_pipeline_has_the_same_picture() -> None:
    boxes = tuple(GraphBox(f"s{n}", f"s{n}", "chat", reads=("s0",) if n else ()) for n in range(6))
    assert layout_graph(boxes) == layout_graph(boxes)
