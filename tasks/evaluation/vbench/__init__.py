"""The paper's Table 2: six dimensions of VBench, measured by VBench itself in an environment of its own."""
