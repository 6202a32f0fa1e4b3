"""The installed distribution: its names, version, examples, editable clone or not.

On the package index `paddock` belongs to another project, so the distribution is `paddock-llm`.
The import name and the command stay `paddock`.
"""

import importlib.util
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "paddock-llm"
STATE_FOLDER = ".paddock"
SETTINGS_FILE = "paddock.toml"

# The release of github.com/ollama/ollama whose API `engine.api.ollama` follows. Clients refuse
# older versions: VS Code asks for 0.6.4 at least.
OLLAMA_API = "0.35.0"


@cache  # 2 ms, and each record of what a rule is made of has it
def own_version() -> str:
    """Return Paddock's version; "0" where it runs from a folder that nothing installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"


def examples_folder() -> Path | None:
    # Resolved, because an editable install is a tree of links that lacks data files.
    spec = importlib.util.find_spec("paddock.examples")
    return Path(spec.origin).resolve().parent if spec is not None and spec.origin else None


def is_clone() -> bool:
    try:
        direct_url = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return False
    is_editable = direct_url.get("dir_info", {}).get("editable", False)
    folder = Path(unquote(urlsplit(direct_url.get("url", "")).path))
    return bool(is_editable) and (folder / "uv.lock").is_file()
