"""A model's answer: asked for, held to a form, repaired, folded."""
