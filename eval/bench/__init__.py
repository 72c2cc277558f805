"""The benchmark: samplers against the fine solution from the same starts."""
