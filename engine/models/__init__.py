"""Models on this machine: names, store, manifests and blobs in Ollama's layout.

Pull, push, create, show.
"""
