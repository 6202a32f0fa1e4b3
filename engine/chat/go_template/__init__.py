"""Go's text/template, the language of Ollama's chat templates."""
