"""Chat: conversations to prompt tokens, and answers to text, reasoning and tool calls."""
