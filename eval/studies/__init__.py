"""Measurements behind the defaults and the documentation."""
