"""A real MCP server, made with the official package: `mcp_server.py [stdio|http PORT]`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import (
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextResourceContents,
    ToolAnnotations,
)

READS = ToolAnnotations(read_only_hint=True)
server = MCPServer("fake")


@server.tool(annotations=READS)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=READS)
def facts(name: str = "ferry") -> dict[str, Any]:
    """Tell what is known."""
    return {"name": name, "key": os.environ.get("FAKE_KEY", ""), "home": "HOME" in os.environ,
            "secret": os.environ.get("SOME_SECRET", ""), "folder": str(Path.cwd())}  # fmt: skip


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=True))
def look_up(word: str) -> str:
    """Look something up in the world."""
    return f"{word}!"


@server.tool()
def die() -> str:
    """End the process."""
    print("the disk is gone", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def hang() -> str:
    """Answer nothing any more, to no one."""
    time.sleep(60)  # noqa: ASYNC251 - that is the point
    return "done"


@server.tool(annotations=READS)
def picture() -> list[Any]:
    """Give a picture, a link and a text that is a file's."""
    file = TextResourceContents(uri="file:///a.txt", mime_type="text/plain", text="in a file")
    return [
        ImageContent(type="image", data="aGFsbG8=", mime_type="image/png"),
        ResourceLink(type="resource_link", name="map", uri="https://example.org/map"),
        EmbeddedResource(type="resource", resource=file),
    ]


@server.tool()
def refuse() -> str:
    """Say no."""
    from mcp.server.mcpserver.exceptions import ToolError

    raise ToolError("not on a Sunday")


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", port=int(sys.argv[2]))
    else:
        server.run("stdio")
