"""From a conversation to tokens, and from an answer's bytes back to what it says."""
