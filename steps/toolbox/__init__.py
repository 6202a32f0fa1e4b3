"""Tools: built-in ones, Python functions, those of MCP servers."""
