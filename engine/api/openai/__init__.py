"""OpenAI's API: chat, completions, responses, embeddings, rerank, models. Batches: `api.batches`.

A body is parsed by `chat_completions` or `responses_api` (with `requests`) into a
`GenerationCall`; `endpoints` runs it against the pool, and the call's stream writer writes what
comes back. Parsing and writing know no pool and no socket, so the lines of a batch (`batch_lines`)
are answered by the same code.
"""
