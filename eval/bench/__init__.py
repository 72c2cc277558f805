"""The benchmark: samplers against the fine solution from the same starts.

Read setup.py (the settings), then jobs.py (what runs), then units.py (one batch through every
sampler), then runner.py (all of it). peers.py drives diffusers' own schedulers.
"""
