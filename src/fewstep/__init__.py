"""fewstep: sampling diffusion models in few steps."""

__version__ = "0.1.0"
