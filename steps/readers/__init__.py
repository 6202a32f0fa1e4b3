"""Documents to text, one module for each kind."""
