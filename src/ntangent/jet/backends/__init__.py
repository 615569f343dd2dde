"""Backends: the same rules, executed by compiled kernels."""
