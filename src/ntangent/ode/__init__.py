"""Ordinary differential equations: methods, and what their gradients are worth."""
