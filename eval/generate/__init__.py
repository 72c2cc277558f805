"""Samples into folders that survive a crash, on one process or several."""
