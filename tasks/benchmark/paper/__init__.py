"""The paper's own ablations on an ordinary data set (paper, section 5.3)."""
