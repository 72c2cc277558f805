"""Modifiers of guidance: when a direction acts, how strongly, and in what shape.

Read strength.py (:class:`Interval` and other factors), then shaping.py (projections and rescaling).
"""
