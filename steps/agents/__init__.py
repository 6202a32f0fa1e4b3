"""A model that may call tools: its turns, its memory, what it may be told."""
