"""Batches by HTTP, as OpenAI has them: files of requests that are answered when there is time."""
