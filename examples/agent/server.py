"""An MCP server with two tools: which notes there are, and what stands in one.

Run by the pipeline over its standard input and output. Nothing but `notes/` can be read.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

NOTES = Path(__file__).resolve().parent / "notes"
# A model can only ask for notes that there are: their names stand in the tool's schema.
Note = Enum("Note", {path.stem: path.name for path in sorted(NOTES.glob("*.md"))}, type=str)
READS = ToolAnnotations(readOnlyHint=True)

server = MCPServer("notes")


@server.tool(annotations=READS)
def list_notes() -> list[str]:
    """Tell which notes there are."""
    return [note.value for note in Note]


@server.tool(annotations=READS)
def read_note(name: Note) -> str:  # type: ignore[valid-type]
    """Give the text of a note."""
    return (NOTES / name.value).read_text(encoding="utf-8")  # type: ignore[attr-defined]


if __name__ == "__main__":
    server.run("stdio")
