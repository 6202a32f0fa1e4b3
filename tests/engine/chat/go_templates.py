"""Read the Go templates next to these tests."""

from functools import cache
from pathlib import Path

from paddock.engine.chat.chat_template import ChatTemplate

GO_TEMPLATES = Path(__file__).parent / "data" / "ollama"
GO_NAMES = sorted(path.stem for path in GO_TEMPLATES.glob("*.gotmpl"))


def go_source(name: str) -> str:
    """Return a template; the newline that ends the file belongs to it only after a text."""
    text = (GO_TEMPLATES / f"{name}.gotmpl").read_text("utf-8")
    return text.removesuffix("\n") if text.endswith("}}\n") else text


@cache
def go_template(name: str) -> ChatTemplate:
    """Return the template of a file, compiled."""
    return ChatTemplate(go_source(name), bos="<BOS>", eos="<EOS>")
