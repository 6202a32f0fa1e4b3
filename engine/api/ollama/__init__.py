"""Ollama's API: /api/generate, chat, embed, models, pull, push, create."""
