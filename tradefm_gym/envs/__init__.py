"""Faces: what a reinforcement learning library sees of the markets."""
