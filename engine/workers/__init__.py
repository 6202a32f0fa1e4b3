"""Worker processes: one for each loaded model, the protocol of its pipe, chats and embeddings inside it."""
