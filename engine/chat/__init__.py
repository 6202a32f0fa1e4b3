"""Chat: from a conversation to prompt tokens by the model's own template, and from the answer's bytes to text, reasoning and tool calls."""
