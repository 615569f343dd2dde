"""Stability functions (placeholder being filled)."""
