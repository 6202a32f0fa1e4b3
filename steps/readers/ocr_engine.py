"""Recognition of text in pictures (OCR), offline. The only module that knows rapidocr.

The models come inside rapidocr's package (32 MB). One engine for the whole process, one picture at
a time. A picture is read in these steps:

1. Lines are found. Where most of them run down, the picture is turned by a quarter to the left: it
   lies on its side, or has vertical columns, which are read as if it did.
2. A few lines are read, and upside down as well: the picture is turned by half if that is better.
3. All lines are read, each by itself. Those that nothing reads are tried upside down.
4. Lines in letters that the models lack are read by models that were added to the package's folder.
   Where these are most of the picture, nothing of it is returned: the rest is noise.
"""

from __future__ import annotations

import re
from cmath import exp, phase
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import compress
from math import dist
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.text_marks import escaped

from . import reader
from .directions import angle_between, directions_of
from .ocr_layout import SeenText, TextBox, join_boxes
from .reader import Unreadable

_THREADS = 2  # the models of the run need the CPU too
_DETECTION_SIDE_PX = 960  # where lines are looked for: as many words of 6.5 points as with 1280
_FINE_SIDE_PX = 1280  # the same for fine print and crowded pages: 7 % more words of a newspaper
_FINE_PRINT_PX, _CROWDED = 10.0, 100  # the height of lines on average, and their number
MOST_OCR_SIDE_PX = 2400  # of what it is shown: A4 at 200 dots an inch
_LEAST_SIDE_PX = 6  # no letter is lower; the library would make such a strip 30 times as long
_TALL = 1.5  # times as high as wide: the library turns such a line to the left
_LEAST_SCORE = 0.5
_SURE = 0.8  # Latin and Chinese have 0.95 and more, other scripts less than 0.75 or no letters
_LEAST_CHARS = 1.0  # in a square of ink of a line's height: Latin has 3, Chinese 1.5, Cyrillic 0.5
_INK = 0.4  # of the difference between the lightest and the darkest of a line
_IS_TEXT = 0.6  # of detection: lines of print have 0.65 and more, stains and drawings less
_LEAST_FOREIGN = 3.0  # squares of text that nothing reads: less may be a drawing, too
_COVERED = 0.35  # of a line's box, which is higher than its letters
_SHORT = 6.0  # times as long as high: enough letters, and soon read
_LONG = 3.0  # times as long as high: its corners tell where a line goes
_LEAST_ANGLE = 0.004  # radians: less is how exactly corners are found
_ASKEW = 0.25  # radians, by which a line runs in another direction than most
_SAMPLE = 4  # lines by which it is decided which way up a picture is
_BETTER = 0.15
_MOST_RETRIED = 50

_SCRIPTS: Mapping[str, tuple[str, str]] = {
    "Latin": ("aeéß", "latin"),
    "Vietnamese": ("ạềữ", "latin"),
    "Chinese": ("的这為", "ch"),
    "Japanese": ("あカ", "japan"),
    "Greek": ("άέώ", "el"),
    "Cyrillic": ("Жюы", "cyrillic"),
    "Arabic": ("عشق", "arabic"),
    "Korean": ("한국가", "korean"),
    "Devanagari": ("अकख", "devanagari"),
    "Thai": ("กขค", "th"),
    "Tamil": ("அகத", "ta"),
    "Telugu": ("అకత", "te"),
}
"""Letters that a model has which reads a script, and RapidOCR's name for such a model."""
_OTHER_SCRIPT = "another script"
_GREEK, _LEAST_GREEK = range(0x370, 0x400), 4  # fewer are a formula's
_VIETNAMESE = frozenset("ơưƠƯ")  # no other language has them
_DEGREES = {0x2103: "\u00b0C", 0x2109: "\u00b0F"}  # single characters, as no one writes them
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")
_RUN = re.compile(r"[\w:*/%+-]+(?:[., ]+[\w:*/%+-]+)*|.", re.ASCII)


def recognise(pixels: Any, known: Sequence[TextBox] = ()) -> SeenText:
    """Read a picture: an array of height x width x 3 bytes, blue first.

    The text has one line per line of the picture; empty if there is none. What stands under texts
    that are `known` is left out. Where it is more than these, they are put into it by place.
    """
    if min(pixels.shape[:2]) < _LEAST_SIDE_PX:
        return SeenText("")
    return _engine().read(pixels, known)


def foreign_refusal(script: str) -> Unreadable:
    why = f"shows text in {script}, which no OCR model here reads"
    if script == _OTHER_SCRIPT:
        why = "shows text that no OCR model here reads: it is in another script, or too unclear"
    reads = _engine().scripts
    lacking = {name: model for name, (_, model) in _SCRIPTS.items() if name not in reads}
    if script in lacking:
        lacking = {script: lacking[script]}
    named = ", ".join(f"{model} ({name})" for name, model in lacking.items())
    return Unreadable(
        why,
        f"The models here read {', '.join(reads)}. Put RapidOCR's model "
        f"NAME_PP-OCRv5_rec_mobile.onnx into {reader.ocr_models_folder()}, NAME being {named}.",
    )


class _ReadText(Struct, frozen=True):
    text: str
    score: float
    is_read: bool
    """Whether it is what stands there, and not the little that letters of another script give."""

    @property
    def is_sure(self) -> bool:
        return self.is_read and self.score >= _SURE


class _LineReader:
    def __init__(self, model: Path | None = None) -> None:
        own = {} if model is None else {"Rec.model_path": str(model)}
        self._engine = _rapidocr(own, n_threads=1)

    @cached_property
    def scripts(self) -> frozenset[str]:
        has = frozenset("".join(self._engine._load_rec_model().postprocess_op.character))
        return frozenset(name for name, (letters, _) in _SCRIPTS.items() if has.issuperset(letters))

    def read(self, crops: Sequence[Any]) -> list[_ReadText]:
        """Read lines, each by itself: the library pads those of a batch, and reads them worse."""
        if not crops:
            return []
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(self._line, crops))

    def _line(self, crop: Any) -> _ReadText:
        found = self._engine.recognize_txt([crop])
        text, score = found.txts[0].strip().translate(_DEGREES), float(found.scores[0])
        n_chars = len("".join(text.split()))
        is_read = score >= _LEAST_SCORE and n_chars >= max(1.0, _LEAST_CHARS * _squares(crop))
        if _script_of(text) not in (_OTHER_SCRIPT, *self.scripts):
            is_read = False  # it has the plain letters, and leaves out those with accents
        if _RIGHT_TO_LEFT.search(text):  # it was read from the left
            text = "".join(reversed(_RUN.findall(text)))
        return _ReadText(text, score, is_read)


class _OcrEngine:
    def __init__(self) -> None:
        self._lock = Lock()
        self._finder = _rapidocr({}, n_threads=_THREADS)
        self._reader = _LineReader()

    @cached_property
    def _added(self) -> tuple[_LineReader, ...]:
        return tuple(map(_LineReader, reader.added_ocr_models()))

    @property
    def scripts(self) -> list[str]:
        known = self._reader.scripts.union(*(model.scripts for model in self._added))
        return [name for name in _SCRIPTS if name in known]

    def read(self, pixels: Any, known: Sequence[TextBox] = ()) -> SeenText:
        with self._lock:
            corners, sure = self._find(pixels)
            is_new = list[bool]()
            for four in corners:  # whether no known text stands where a line does
                (left, top), (right, bottom) = four.min(0), four.max(0)
                covered = sum(
                    max(0.0, min(right, box.right) - max(left, box.left))
                    * max(0.0, min(bottom, box.bottom) - max(top, box.top))
                    for box in known
                )
                is_new.append(bool(covered <= _COVERED * (right - left) * (bottom - top)))
            corners, sure = corners[is_new], list(compress(sure, is_new))
            if not len(corners):
                return SeenText("")
            turns = 0
            sizes = [(dist(four[0], four[1]), dist(four[0], four[3])) for four in corners]
            n_down = sum(down for across, down in sizes if down > _TALL * across)
            if n_down > sum(across for across, down in sizes if across > down):
                pixels, corners, turns = *_turned(pixels, corners), 1
            crops = _crops(pixels, corners)
            if self._is_upside_down(crops):
                pixels, corners, turns = *_turned(*_turned(pixels, corners)), turns + 2
                crops = _crops(pixels, corners)
            lines = self._read_lines(crops)
        n_sure = n_unsure = 0.0
        lost = list[_ReadText]()
        for line, crop, score in zip(lines, crops, sure, strict=True):
            if line.is_sure:
                n_sure += _squares(crop)
            elif score >= _IS_TEXT:
                n_unsure += _squares(crop)
                lost += [] if line.is_read else [line]
        if n_unsure > max(n_sure, _LEAST_FOREIGN):
            script = _script_of("".join(line.text for line in lost))
            return SeenText("", n_unread=len(lines), foreign=script)
        height, width = pixels.shape[:2]
        boxes = list[TextBox]()
        angle = _angle_of(corners)
        for line, four in zip(lines, corners, strict=True):
            (left, top), (right, bottom) = map(float, four.min(0)), map(float, four.max(0))
            n_known = sum(
                len(box.text)
                for box in known
                if left < (box.left + box.right) / 2 < right
                and top < (box.top + box.bottom) / 2 < bottom
            )
            if line.is_read and 2 * n_known < len(line.text):  # else of words far apart
                sides, is_aside = _level_box(four, angle)
                boxes.append(TextBox(escaped(line.text), *sides, line.score, is_aside))
        n_known, n_read = (sum(len(box.text) for box in some) for some in (known, boxes))
        has_known = 0 < n_known <= n_read and not turns
        for box in known if has_known else ():
            middle = complex(box.left + box.right, box.top + box.bottom) / 2
            by = middle * exp(-1j * angle) - middle
            x_0, x_1, y_0, y_1 = box.left, box.right, box.top, box.bottom
            sides = x_0 + by.real, y_0 + by.imag, x_1 + by.real, y_1 + by.imag
            boxes.append(TextBox(box.text, *sides, box.score))
        seen = join_boxes(boxes, width, height, turns, angle)
        return replace(seen, n_unread=len(lost), has_known=has_known)

    def _find(self, pixels: Any) -> tuple[Any, Sequence[float]]:
        """Return the corners of each line, from its top left on, and how sure each is a line."""
        detector = self._finder._load_det_model()  # its public face is loaded when it is called
        for side in (_DETECTION_SIDE_PX, _FINE_SIDE_PX):
            detector.limit_side_len = side
            found = self._finder(pixels, use_cls=False, use_rec=False)
            if found.boxes is None:
                return pixels.reshape(-1)[:0].reshape(0, 4, 2), ()
            heights = [dist(four[0], four[3]) for four in found.boxes]
            is_fine = median(heights) * side < _FINE_PRINT_PX * max(pixels.shape)
            if not is_fine and len(heights) < _CROWDED:
                break
        return found.boxes.astype("float32"), found.scores

    def _is_upside_down(self, crops: Sequence[Any]) -> bool:
        sample = sorted(crops, key=lambda crop: abs(crop.shape[1] / crop.shape[0] - _SHORT))
        as_it_is = _mean_score(self._reader.read(sample[:_SAMPLE]))
        if as_it_is >= _SURE:
            return False
        turned = self._reader.read([crop[::-1, ::-1].copy() for crop in sample[:_SAMPLE]])
        return _mean_score(turned) >= max(_SURE, as_it_is + _BETTER)

    def _read_lines(self, crops: Sequence[Any]) -> list[_ReadText]:
        lines = self._reader.read(crops)
        poor = [at for at, line in enumerate(lines) if not line.is_sure]
        if len(poor) <= len(lines) // 2:
            turned = [crops[at][::-1, ::-1].copy() for at in poor[:_MOST_RETRIED]]
            for at, again in zip(poor, self._reader.read(turned), strict=False):
                lines[at] = again if again.is_sure else lines[at]
        poor = [at for at, line in enumerate(lines) if not line.is_sure]
        longest = sorted(poor, key=lambda at: -crops[at].shape[1])[:_SAMPLE]
        tried = [
            (_mean_score(model.read([crops[at] for at in longest])), model)
            for model in (self._added if poor else ())
        ]
        best, model = max(tried, key=lambda trial: trial[0], default=(0.0, self._reader))
        if best >= _LEAST_SCORE:
            for at, again in zip(poor, model.read([crops[at] for at in poor]), strict=True):
                lines[at] = again if again.is_read else lines[at]
        return lines


@cache
def _engine() -> _OcrEngine:
    return _OcrEngine()


def _rapidocr(params: Mapping[str, Any], n_threads: int) -> Any:
    """Return the library's engine, whose types list all that it may return."""
    from rapidocr import RapidOCR

    threads = "EngineConfig.onnxruntime.intra_op_num_threads"
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.max_side_len": MOST_OCR_SIDE_PX,
            "Det.limit_type": "max",
            "Rec.rec_batch_num": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            threads: n_threads,
            **params,
        }
    )


def _turned(pixels: Any, corners: Any) -> tuple[Any, Any]:
    moved = corners[:, :, ::-1].copy()
    moved[:, :, 1] = pixels.shape[1] - moved[:, :, 1]
    return pixels.swapaxes(0, 1)[::-1].copy(), moved[:, [1, 2, 3, 0]]


def _angle_of(corners: Any) -> float:
    """Return the radians by which most lines fall; 0: too few to be seen."""
    lengths: Counter[float] = Counter()
    for four in corners:
        along = complex(*map(float, four[1] - four[0]))
        if abs(along) > _LONG * dist(four[0], four[3]):
            lengths[phase(along)] += abs(along)  # type: ignore[assignment]
    angle = next(iter(directions_of(lengths)), 0.0)
    return angle if abs(angle) > _LEAST_ANGLE else 0.0


def _level_box(four: Any, angle: float) -> tuple[tuple[float, float, float, float], bool]:
    """Return the sides of a line in a level picture, and whether it runs otherwise."""
    across, down = dist(four[0], four[1]), dist(four[0], four[3])
    turned = [complex(*map(float, corner)) * exp(-1j * angle) for corner in four]
    xs, ys = [at.real for at in turned], [at.imag for at in turned]
    is_askew = abs(angle_between(phase(turned[1] - turned[0]), 0.0)) > _ASKEW
    is_aside = down > _TALL * across or (across > _LONG * down and is_askew)
    if not angle or is_aside:
        return (min(xs), min(ys), max(xs), max(ys)), is_aside
    left, right = (xs[0] + xs[3]) / 2, (xs[1] + xs[2]) / 2
    return (left, (ys[0] + ys[1]) / 2, right, (ys[2] + ys[3]) / 2), False


def _crops(pixels: Any, corners: Any) -> list[Any]:
    from rapidocr.utils.process_img import get_rotate_crop_image

    return [get_rotate_crop_image(pixels, four.copy()) for four in corners]


def _squares(crop: Any) -> float:
    """Return how many squares of its height the ink of a line fills, without gaps."""
    light = crop[:, :, 1].astype("int16")
    contrast = light.max() - light.min()
    inked = light.max(axis=0) - light.min(axis=0) > _INK * contrast
    return float(inked.sum()) / len(light)


def _mean_score(lines: Sequence[_ReadText]) -> float:
    return sum(line.score * line.is_read for line in lines) / max(1, len(lines))


def _script_of(text: str) -> str:
    """Return the script of what a model without its letters made of it."""
    if not _VIETNAMESE.isdisjoint(text):
        return "Vietnamese"
    n_greek = sum(ord(char) in _GREEK for char in text)
    is_greek = n_greek >= _LEAST_GREEK and n_greek > sum(map(str.isalpha, text)) / 2
    return "Greek" if is_greek else _OTHER_SCRIPT
