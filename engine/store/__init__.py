"""The models on this machine: names, manifests, blobs, in Ollama's layout."""
