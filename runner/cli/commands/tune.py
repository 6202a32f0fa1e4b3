"""`paddock tune`: make a copy of a model without number formats that are slow on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from paddock.engine.backends.speed_estimates import SpeedBook
from paddock.engine.memory.device_memory import this_device
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.tuning.tuned_copies import TunedCopyStore, TuningVerdict
from paddock.engine.tuning.tuner import TUNING_FORMATS, TuningRequest, example_texts
from paddock.engine.tuning.tuner import tune as tune_model
from paddock.runner.cli.arguments import JsonOption, flag, option
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.cli.model_arguments import MAX_INPUT_BYTES, model_argument
from paddock.runner.cli.model_tables import tuned_copy_json, tuned_copy_table, tuned_copy_text
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings
from paddock.steps.base import StepError
from paddock.steps.readers.documents import wait_for_document
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderPool

if TYPE_CHECKING:
    from paddock.engine.settings import PoolSettings

# Limits of `--on`: a model reads some thousand tokens in the time that a copy takes.
_MAX_DOCUMENTS, _MAX_CHARACTERS = 64, 20_000


def tune(
    model: Annotated[str | None, model_argument("Without one: list the tuned copies.")] = None,
    undo: bool = flag("Remove the copy; none is made unless you ask for it.", "--undo"),
    format_name: str | None = option(
        "Convert all matrices to it; formats smaller than Q8_0 lose some quality. "
        "By default only those in slow formats, to Q8_0 or, in small models, F16 or BF16.",
        "--format",
        metavar="FORMAT",
    ),
    on: list[Path] | None = option(
        "Measure speed and agreement on your documents: a file or a folder; can be "
        "repeated. Only the numbers are stored.",
        "--on",
        metavar="PATH",
    ),
    force: bool = flag("Make it even if it would not help.", "--force"),
    as_json: JsonOption = False,
) -> int:
    """Make a copy of a model that this machine reads faster, all but lossless.

    Only tensors in formats that measure slow here are changed.
    """
    settings = read_settings(Path.cwd()).pool
    if model is None:
        if undo or format_name or force or on:
            raise CommandError("Name a model: `paddock tune MODEL`. `paddock list` shows them.")
        copies = tuple(TunedCopyStore(settings.cache_dir).all())
        gains = tuple(SpeedBook(settings).gains())
        if as_json:
            promised = [{"name": g.ref, "prompts": g.prompts, "job": g.job} for g in gains]
            printing.print_json(
                {"tuned": [tuned_copy_json(copy) for copy in copies], "promised": promised}
            )
            return DONE
        if copies:
            printing.print_out(tuned_copy_table(copies))
        for gain in gains:
            printing.print_out(
                f"A tuned copy of {gain.ref} would read prompts about {gain.prompts:.1f} times as "
                f"fast: {gain.command}"
            )
        if not copies and not gains:
            printing.print_err("No model has a tuned copy, and none is known to profit from one.")
        return DONE
    if undo:
        return _remove_copy(model, settings, as_json=as_json)
    format_name = parse_format(format_name)
    facts = ModelFinder(settings.models_dir, settings.cache_dir).find_original(model)
    if facts.role == "rerank":
        raise CommandError(
            f"'{facts.name}' is a reranker; only chat and embedding models are tuned."
        )
    own = document_texts(on) if on else ()
    request = TuningRequest(
        facts,
        format_name,
        settings.n_threads or this_device().n_threads,
        own or example_texts(),
        force,
        len(own),
        is_near=settings.tune == "near" and format_name is None,
    )
    made = tune_model(
        request, settings, lambda what: printing.print_err(f"{facts.name}: {what} ...")
    )
    printing.print_result(tuned_copy_json(made), "\n".join(tuned_copy_text(made)), as_json=as_json)
    return DONE


def parse_format(name: str | None) -> str | None:
    """Return a format's name as llama.cpp writes it; None: the best one for each tensor."""
    if name is None:
        return None
    format_name = name.upper()
    if format_name not in TUNING_FORMATS:
        raise CommandError(
            f"'{name}' is not a format of tensors.\n  Known: {', '.join(sorted(TUNING_FORMATS))}."
        )
    return format_name


def document_texts(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the beginnings of at most 64 of the user's documents, evenly sampled.

    Unreadable files in a folder are left out.

    Raises:
        CommandError: no such file or folder, or none has text.
        StepError: a file that was named itself cannot be read.
    """
    files = [file for path in paths for file in _document_files(path)]
    step = max(1, -(-len(files) // _MAX_DOCUMENTS))
    found = []
    with closing(ReaderPool()) as readers:
        for file in files[::step]:
            request = DocumentRequest(file, None, "auto", ocr=False, max_bytes=MAX_INPUT_BYTES)
            try:
                text = wait_for_document(readers.submit(request), file).text
            except StepError:
                if file in paths:
                    raise
                continue
            if text.strip():
                found.append(text[:_MAX_CHARACTERS])
    if not found:
        names = ", ".join(f"'{path}'" for path in paths)
        raise CommandError(f"There is no text in {names}.")
    return tuple(found)


def _document_files(path: Path) -> list[Path]:
    """Return a file, or the files below a folder, sorted, without hidden ones."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CommandError(f"There is no file or folder '{path}'.")
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _remove_copy(ref: str, settings: PoolSettings, *, as_json: bool) -> int:
    finder = ModelFinder(settings.models_dir, settings.cache_dir)
    facts = finder.find_original(ref)
    was = finder.tuned.forget(facts.digest)
    refused = "`paddock tune --undo` refused one"
    verdict = TuningVerdict(facts.name, "", refused, original_path=facts.path)
    finder.tuned.keep_verdict(facts.digest, verdict)
    if as_json:
        printing.print_json({"name": facts.name, "removed": was is not None})
    elif was is None:
        printing.print_out(f"{facts.name} has no tuned copy, and gets none unless you ask for it.")
    else:
        printing.print_out(f"Removed the tuned copy of {facts.name}; the original serves again.")
    return DONE
