"""Coordinate decoding in Triton. Importing this package does not need Triton; its kernels do."""
