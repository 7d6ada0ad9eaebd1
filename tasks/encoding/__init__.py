"""Clip pairs -> latents in shards, once for a codec and a picture size (paper, section 4.1)."""
