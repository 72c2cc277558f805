"""Sampling without diffusers: `sample`, and what it looks at first."""
