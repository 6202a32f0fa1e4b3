"""Models on this machine: find, pull, push, create and show them; the store in Ollama's layout."""
