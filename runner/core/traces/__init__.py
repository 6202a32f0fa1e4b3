"""Rule, key, trace: what each item was made from, and whether that is still so."""
