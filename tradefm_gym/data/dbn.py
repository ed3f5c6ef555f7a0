def is_csv(s): return False
