"""Item codes: text embedding, residual K-means, the code table, and the trie of legal codes."""
