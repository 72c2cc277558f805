"""Sampling without diffusers: `sample`, and what it looks at first.

Read loop.py. given.py looks at the arguments, diverged.py at samples that are not finite, and
recompute.py makes the activations of a network call anew for the backward pass.
"""
