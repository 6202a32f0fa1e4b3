"""`paddock embed`: print vectors of texts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.runner.cli.arguments import JsonOption, argument, flag, keep_alive_option, option
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.cli.model_arguments import (
    ModelArgument,
    parse_keep_alive,
    read_document_text,
    read_stdin,
    resolve_model_ref,
)
from paddock.runner.daemon.service_client import READ_TIMEOUT_S
from paddock.runner.daemon.service_lookup import service_for_command
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings


@dataclass(frozen=True, slots=True)
class EmbedFlags:
    model: ModelArgument
    texts: list[str] | None = argument("Without any: standard input.", metavar="TEXT")
    files: list[str] | None = option("Embed a file's text.", "--file", "-f", metavar="FILE")
    lines: bool = flag("Embed each line separately.", "--lines")
    dimensions: int | None = option("Keep this many numbers of each vector.", min=1, metavar="N")
    truncate: bool = flag("Cut texts that are too long instead of failing.", "--truncate")
    keep_alive: str | None = keep_alive_option()
    as_json: JsonOption = False


def embed(flags: EmbedFlags) -> int:
    model = resolve_model_ref(flags.model)
    texts, files = flags.texts or [], flags.files or []
    whole = [read_document_text(file) for file in files]
    if not texts and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise CommandError("Name a text: `paddock embed MODEL 'a text'`, or pipe one in.")
        whole.append(read_stdin())
    if flags.lines:
        whole = [line for text in whole for line in text.splitlines() if line.strip()]
    if not texts and not whole:
        raise CommandError("There is no text.")
    texts = [*texts, *whole]
    body: dict[str, Any] = {"model": model, "input": texts, "truncate": flags.truncate}
    if flags.dimensions is not None:
        body["dimensions"] = flags.dimensions
    if flags.keep_alive is not None:
        body["keep_alive"] = parse_keep_alive(flags.keep_alive)
    with service_for_command(read_settings(Path.cwd()), model) as client:
        answer = client.post("/api/embed", body, READ_TIMEOUT_S)
    if flags.as_json:
        printing.print_json(answer)
    else:
        for vector in answer.get("embeddings", []):
            printing.print_out(json.dumps(vector))
    return DONE
