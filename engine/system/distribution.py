"""The installed distribution that brings Paddock: its name and version.

On the package index `paddock` belongs to another project, so the distribution is `paddock-llm`.
The import name and the command stay `paddock`.
"""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "paddock-llm"


def own_version() -> str:
    """Return Paddock's version; "0" where it runs from a folder that nothing installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0"
