"""From a row of logits to a token.

Greedy, sampled, or constrained by a JSON Schema, regex or grammar.
"""
