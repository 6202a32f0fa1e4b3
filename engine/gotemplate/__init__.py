"""Go's text/template: the language in which Ollama's chat templates are written."""
