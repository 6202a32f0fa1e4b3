"""From a row of logits to a token: penalties, constraints, llama.cpp's samplers."""
