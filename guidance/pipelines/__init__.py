"""Guidance in the stock pipelines of diffusers.

Read attachment.py (``attach`` and ``detach``), then run.py (one run of a pipeline under guidance).
networks.py calls a pipeline's network as it would itself, levels.py says at which noise level, and
text.py has its prompts.
"""
