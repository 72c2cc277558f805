"""What the configs of diffusers' schedulers mean.

Read config.py (the noise process of a config), then spacing.py (its grid of levels). peers.py makes
a grid as a scheduler of diffusers would, and distilled.py knows which configs are of models that
follow no differential equation.
"""
