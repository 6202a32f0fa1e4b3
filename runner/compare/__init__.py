"""Gold data, metrics, and variants of a pipeline that are compared on them."""
