"""HTTP service of a pool: Ollama's, OpenAI's and Anthropic's APIs, security, monitoring."""
