"""PowerPoint documents to Markdown: a slide is a page.

With tables, charts, comments and the speaker's notes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import hidden

from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerPictures
from .office import (
    DRAWN_TEXT,
    OFF,
    damage_errors,
    drawn_list,
    drawn_texts,
    embedded_notes,
    has_unknown_number,
    import_library,
    in_reading_order,
    open_archive,
    paragraph_text,
    part_tree,
    refuse_textless,
    shape_blocks,
    text_of,
    with_note_marks,
)
from .office_archives import load_archive
from .reader import Document, ReadRequest, hidden_text_note

_PRESENTATION = "a presentation"


def read_pptx(file: BinaryIO, request: ReadRequest) -> Document:
    pptx = import_library("pptx", _PRESENTATION)
    archive = open_archive(file, _PRESENTATION)

    def load(file: BinaryIO) -> Any:
        presentation = pptx.Presentation(file)
        list(presentation.slides)  # raises for one that is missing
        return presentation

    with (
        damage_errors(_PRESENTATION),
        load_archive(load, file, archive) as (presentation, _, damage),
    ):
        authors = {
            author.get("id", ""): author.get("name", "")
            for relation in presentation.part.rels.values()
            if relation.reltype.endswith(("/commentAuthors", "/authors"))
            for author in part_tree(relation)
        }
        pages: list[str] = []
        unshown: list[str] = []
        kinds: list[str] = []
        repeated: set[str] = set()
        n_odd = 0
        pictures = InnerPictures(request)
        for slide in presentation.slides:
            request.check(len(pages[-1]) if pages else 0)
            blocks = list(_slide_blocks(slide, unshown, authors))
            repeated_here = dict.fromkeys(_layout_blocks(slide, unshown, pictures))
            blocks += [text for text in repeated_here if text not in repeated]
            repeated.update(repeated_here)
            page = with_note_marks("\n\n".join(filter(None, blocks)))
            page = "\n\n".join(filter(None, (page, pictures.of_part(slide.part))))
            pages.append(hidden(page) if slide._element.get("show") in OFF else page)
            kinds += [relation.reltype for relation in slide.part.rels.values()]
            n_odd += sum(map(has_unknown_number, slide._element.iter("{*}buAutoNum")))
        numbered = enumerate(presentation.slides, 1)
        slides = [str(n) for n, slide in numbered if slide._element.get("show") in OFF]
        title = (presentation.core_properties.title or "").strip()
    refuse_textless(_PRESENTATION, "".join(pages), kinds, damage)
    if title.lower() == "powerpoint presentation":
        title = ""  # the program's default title
    notes = [f": hidden slides are read as well ({', '.join(slides)})"] if slides else []
    if n_odd:
        what = counted(n_odd, "automatic number has", "automatic numbers have")
        notes.append(f": {what} a format that is not known and written in digits")
    notes += [
        *damage,
        *hidden_text_note("the slide", unshown),
        *embedded_notes(kinds),
        *pictures.notes(),
    ]
    return Document(tuple(pages), title, MEDIA_TYPES["pptx"], tuple(notes))


def _slide_blocks(slide: Any, unshown: list[str], authors: dict[str, str]) -> Iterator[str]:
    """Yield a slide's texts; those of shapes that it does not show go to `unshown` as well."""
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        text = " ".join(filter(None, map(paragraph_text, title._element.iter(DRAWN_TEXT))))
        yield f"# {text}" if text else ""
    title_id = getattr(title, "shape_id", None)
    size = slide.part.package.presentation_part.presentation
    painted = [(shape.shape_id, _bounds(shape), _is_opaque(shape)) for shape in slide.shapes]
    for shape in in_reading_order(s for s in slide.shapes if s.shape_id != title_id):
        blocks = list(filter(None, shape_blocks(shape, 0, unshown)))
        left, top, right, bottom = box = _bounds(shape)
        at = next(n for n, found in enumerate(painted) if found[0] == shape.shape_id)
        is_unseen = (
            right <= 0 or bottom <= 0 or left >= size.slide_width or top >= size.slide_height
        )
        is_unseen = is_unseen or any(
            is_opaque and _is_around(cover, box) for _, cover, is_opaque in painted[at + 1 :]
        )
        unshown += blocks if is_unseen else ()
        yield from map(hidden, blocks) if is_unseen else blocks
    for chosen in slide._element.iter(_CHOICE):  # newer shapes, such as formulas
        yield from (drawn_list(body, ()) for body in chosen.iter("{*}txBody"))
    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/diagramData"):
            yield from drawn_texts(relation)
    if slide.has_notes_slide:
        page = slide.notes_slide
        boxes = [s.text_frame for s in page.shapes if s.has_text_frame and not s.is_placeholder]
        frames = filter(None, (page.notes_text_frame, *boxes))
        paragraphs = (p for frame in frames for p in frame._txBody.iter(DRAWN_TEXT))
        notes = "\n".join(filter(None, map(paragraph_text, paragraphs)))
        yield f"Notes: {notes}" if notes else ""
    lines = ["Comments:"]
    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/comments"):
            for comment in part_tree(relation).iter("{*}cm", "{*}reply"):
                body = comment.find("{*}txBody")
                body = comment.find("{*}text") if body is None else body
                text = text_of(body) if body is not None else ""
                who = authors.get(comment.get("authorId", ""), ""), comment.get("dt", "")[:10]
                author = " ".join(filter(None, who))
                lines += [f"- {text} ({author})" if author else f"- {text}"] if text else []
    yield "\n".join(lines) if len(lines) > 1 else ""


def _layout_blocks(slide: Any, unshown: list[str], pictures: InnerPictures) -> Iterator[str]:
    """Yield what a slide shows of its layout and master: all but the places for its own text."""
    owner = slide
    for kind, name in (("/slideLayout", "slide_layout"), ("/slideMaster", "slide_master")):
        if owner._element.get("showMasterSp") in OFF:
            return
        relations = [r for r in owner.part.rels.values() if r.reltype.endswith(kind)]
        parts = [relation.target_part for relation in relations if not relation.is_external]
        if not parts or not hasattr(parts[0], name):  # some programs write none
            return
        owner = getattr(parts[0], name)
        yield from filter(None, [pictures.of_part(owner.part)])
        if owner._element.find("{*}cSld/{*}spTree") is None:
            continue
        for shape in in_reading_order(s for s in owner.shapes if not s.is_placeholder):
            yield from filter(None, shape_blocks(shape, 0, unshown))


def _bounds(shape: Any) -> tuple[int, int, int, int]:
    with suppress(Exception):  # damaged in many ways, or that of a layout which is missing
        left, top = shape.left, shape.top
        return left, top, left + shape.width, top + shape.height
    return 1, 1, 1, 1


def _is_opaque(shape: Any) -> bool:
    """Return whether a shape hides all that lies below it: a box that is filled with a colour."""
    form = shape._element.find("{*}spPr")
    box = None if form is None else form.find("{*}prstGeom[@prst='rect']")
    if form is None or box is None or form.find("{*}xfrm[@rot]") is not None:
        return False
    fill, style = form.find("{*}solidFill"), shape._element.find("{*}style/{*}fillRef")
    if fill is None and not any(part.tag.endswith("Fill") for part in form):
        return style is not None and style.get("idx", "0") != "0"
    return fill is not None and next(fill.iter("{*}alpha"), None) is None


def _is_around(cover: tuple[int, ...], box: tuple[int, ...]) -> bool:
    is_wide = cover[0] <= box[0] and cover[2] >= box[2] > box[0]
    return is_wide and cover[1] <= box[1] and cover[3] >= box[3] > box[1]


_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Choice"
