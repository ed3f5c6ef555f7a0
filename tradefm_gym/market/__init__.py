"""The exchange: deterministic, integer, NumPy and Numba only."""
