"""What people are asked, and what they decided: rows, their store, what was asked before."""
