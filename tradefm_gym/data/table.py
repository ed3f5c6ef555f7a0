def column_map(t): return None
