"""Find LoRA adapters and see that they are ones, before a worker is started for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddock.engine.errors import AdapterBroken, ModelBroken
from paddock.engine.gguf import read_header


def resolve_adapters(refs: Sequence[str]) -> tuple[str, ...]:
    """Give the adapters' whole paths, in their order.

    Raises:
        AdapterBroken: no file, or not a LoRA adapter in GGUF.
    """
    return tuple(str(_checked(Path(ref).expanduser())) for ref in refs)


def _checked(path: Path) -> Path:
    if not path.is_file():
        raise AdapterBroken(str(path), "there is no such file. Name the path of a GGUF adapter.")
    try:
        header = read_header(path)
    except ModelBroken as error:
        raise AdapterBroken(str(path), error.why) from None
    if header.values.get("adapter.type") != "lora":
        kind = header.values.get("general.type", "model")
        raise AdapterBroken(str(path), f"this is not a LoRA adapter, but a GGUF file of a {kind}")
    return path.resolve()
