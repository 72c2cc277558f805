"""Sets of images from folders, archives and arrays, and their scores.

Read sources.py (what a set may come from), then calculate.py (what ``fewstep calc`` computes).
"""
