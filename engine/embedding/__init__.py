"""Vectors for texts: split, packed in fair turns, computed alike in any company."""
