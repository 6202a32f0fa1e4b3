"""Model memory: which models are loaded, and which make room for others."""
