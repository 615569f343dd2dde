"""The rules of jets, executed by compiled kernels."""
