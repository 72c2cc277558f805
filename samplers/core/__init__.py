"""The core: a sampler is a table of numbers, and one executor runs every table."""
