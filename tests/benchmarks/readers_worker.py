"""One reader of documents in a process of its own, for `readers.py`; needs the standard library.

Started by the Python that has the reader, with its name. Each line of its input is a path, each
line of its output one JSON object: the text, or the error, and the seconds.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

ONLY = {"pypdf": "pdf", "pymupdf4llm": "pdf", "mailparser": "eml", "extract_msg": "msg"}
"""The kind of those that read no other one."""


def paddock() -> Callable[[Path], str]:
    from paddock.steps.readers.reader_process import ReadOptions, read_document

    return lambda path: read_document(path, ReadOptions(ocr=False), 2**28).text


def markitdown() -> Callable[[Path], str]:
    from markitdown import MarkItDown  # type: ignore[import-not-found]

    reader: Any = MarkItDown()
    return lambda path: str(reader.convert(str(path)).text_content)


def pypdf() -> Callable[[Path], str]:
    from pypdf import PdfReader  # type: ignore[import-not-found]

    return lambda path: "\n\n".join(page.extract_text() for page in PdfReader(path).pages)


def kreuzberg() -> Callable[[Path], str]:
    import kreuzberg as library

    config = library.ExtractionConfig(use_cache=False, output_format="markdown")
    return lambda path: str(library.extract_file_sync(path, config=config).content)


def pymupdf4llm() -> Callable[[Path], str]:
    import pymupdf4llm as library  # type: ignore[import-not-found]

    return lambda path: str(library.to_markdown(str(path), use_ocr=False))


def mailparser() -> Callable[[Path], str]:
    import mailparser as library  # type: ignore[import-not-found]

    def read(path: Path) -> str:
        mail = library.parse_from_file(str(path))
        heads = [f"Date: {mail.message.get('Date', '')}", f"Subject: {mail.subject}"]
        for name, people in {"From": mail.from_, "To": mail.to, "Cc": mail.cc}.items():
            heads += [f"{name}: {shown} <{address}>" for shown, address in people]
        names = [str(part["filename"]) for part in mail.attachments]
        return _mail_text(heads, mail.text_plain, mail.text_html, names)

    return read


def extract_msg() -> Callable[[Path], str]:
    import extract_msg as library  # type: ignore[import-not-found]

    def read(path: Path) -> str:
        with library.openMsg(str(path)) as mail:
            date = f"{mail.date:%a, %d %b %Y %H:%M:%S %z}" if mail.date else ""
            values = {"From": mail.sender, "To": mail.to, "Cc": mail.cc, "Subject": mail.subject}
            heads = [f"{name}: {value or ''}" for name, value in {**values, "Date": date}.items()]
            page = (mail.htmlBody or b"").decode("utf-8", "replace")
            names = [str(part.longFilename) for part in mail.attachments]
            return _mail_text(heads, list(filter(None, [mail.body])), [page], names)

    return read


def _mail_text(
    heads: Sequence[str], texts: Sequence[str], pages: Sequence[str], attached: Sequence[str]
) -> str:
    shown = texts or [unescape(re.sub("<[^>]*>", " ", page)) for page in pages]
    return "\n".join([*heads, *shown, *attached])


READERS = {
    reader.__name__: reader
    for reader in (paddock, markitdown, pypdf, kreuzberg, pymupdf4llm, mailparser, extract_msg)
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    read = READERS[sys.argv[1]]()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        try:
            answer = {"text": read(Path(line.rstrip("\n"))), "error": ""}
        except BaseException as error:  # of any library, panics included
            answer = {"text": "", "error": f"{type(error).__name__}: {error}"[:200]}
        answer["seconds"] = str(time.perf_counter() - began)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
