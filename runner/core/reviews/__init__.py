"""What people decided, as a run asks for it and uses it: questions, decisions, examples."""
