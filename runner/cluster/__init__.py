"""Several machines: what they need, checked; their workers; runs shared among them."""
