"""Pools that are not ours: OpenAI-compatible servers, several of them balanced."""
