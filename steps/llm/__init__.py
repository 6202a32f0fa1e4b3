"""Steps that ask a model: chat, summarise, reduce, agent; and what they share.

Asking, repair of answers, map-reduce, and tool calls.
"""
