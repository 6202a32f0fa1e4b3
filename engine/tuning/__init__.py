"""Tuned copies: copies of small models in the format that this processor multiplies natively."""
