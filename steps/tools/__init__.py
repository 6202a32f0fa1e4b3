"""Tools for the step `tool` and for models: built-in ones, Python functions, MCP servers."""
