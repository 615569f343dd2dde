"""Ordinary differential equations: methods, and what their gradients are worth."""

from ntangent.ode import methods as methods
