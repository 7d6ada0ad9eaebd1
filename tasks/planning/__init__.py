"""Road networks -> sites -> six trajectory types -> jitter and weather -> plan.parquet (paper, section 3)."""
