"""Text without a model: chunks, headings, citations."""
