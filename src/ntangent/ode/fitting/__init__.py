"""Fitting of differential equations to data."""
