"""Calibration: what the confidence of answers is worth, by what people decided."""
