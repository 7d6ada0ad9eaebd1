"""Recorded clip pairs -> WebDataset shards with an index, a data card, a verifier; and the reader of shards."""
