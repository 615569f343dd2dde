"""Derivatives of solutions: adjoint and forward."""
