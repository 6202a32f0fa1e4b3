"""Rules that decisions of people teach, and what they read in a document."""
