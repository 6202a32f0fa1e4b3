"""Tuned copies: near-lossless copies of models in formats that this device computes faster."""
