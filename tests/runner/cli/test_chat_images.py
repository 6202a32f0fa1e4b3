import base64
from pathlib import Path

import pytest

from paddock.runner.cli import chat_images

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("cat.png", "my cat.png", "dog.JPEG"):
        (tmp_path / name).write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "rest", "names"),
    [
        ("what is ./cat.png ?", "what is ?", ["cat.png"]),
        ("'my cat.png' and dog.JPEG", "and", ["my cat.png", "dog.JPEG"]),
        (r"what is my\ cat.png", "what is", ["my cat.png"]),
        ("what is a cat.png.html", "what is a cat.png.html", []),
        ("nothing/here.png", "nothing/here.png", []),
        ("two\nlines  with   spaces", "two\nlines  with   spaces", []),
    ],
)
def test_only_images_that_are_there_are_taken_out(
    folder: Path, text: str, rest: str, names: list[str]
) -> None:
    found = chat_images.find_images(text)
    assert (found[0], [str(path) for path in found[1]]) == (
        rest,
        [str(Path(name)) for name in names],
    )


def test_an_image_is_sent_as_it_is(folder: Path) -> None:
    assert base64.b64decode(chat_images.encode_image(folder / "cat.png")) == PNG


def test_what_is_no_image_or_not_there_is_told(folder: Path) -> None:
    (folder / "text.png").write_text("hello")
    with pytest.raises(chat_images.NotAnImage, match=r"is not an image\. Known formats: PNG, JPEG"):
        chat_images.encode_image(folder / "text.png")
    with pytest.raises(chat_images.NotAnImage, match="No such file"):
        chat_images.encode_image(folder / "gone.png")
