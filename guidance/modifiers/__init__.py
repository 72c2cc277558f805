"""Modifiers of guidance: when a direction acts, how strongly, and in what shape."""
