"""The diffusers side: schedulers whose `step` runs one evaluation of a plan."""
