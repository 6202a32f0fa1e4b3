"""OpenAI's API.

A body is read by `chat`, `completions` or `responses` (with `messages`, `items` and `wishes`) into
a `Call`; `generation` runs it; `answers` and each call's speaker write what comes back. Reading
and writing know no pool and no socket, so a batch's lines (`batch/`) are answered by the same code.
"""
