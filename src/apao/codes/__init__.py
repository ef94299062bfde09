"""Item codes: text embedding, tokenizers, the code table, and the trie of legal codes."""
