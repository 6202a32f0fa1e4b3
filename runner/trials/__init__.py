"""A pipeline's tests: cases, recorded replies, expectations, reports."""
