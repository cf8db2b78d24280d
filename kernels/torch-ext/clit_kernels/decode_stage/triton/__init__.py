"""A whole stage in Triton: the kernels of its two ops, tile by tile."""
