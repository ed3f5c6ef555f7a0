def looks_like(s): return False
