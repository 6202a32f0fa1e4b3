"""Review: questions to people, their decisions, and where they are made."""
