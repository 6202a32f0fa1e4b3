"""Worker processes, one for each loaded model: the pipe's protocol, chats and embeddings."""
