"""Stylised facts, distances, the realism card."""
