"""What several parts of the evaluation need: processes, caches, keys, clocks, words."""
