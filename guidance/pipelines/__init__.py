"""Guidance in the stock pipelines of diffusers."""
