"""Reviews in a run: questions, decisions, examples."""
