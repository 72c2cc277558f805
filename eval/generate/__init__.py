"""Samples into folders that survive a crash, on one process or several.

Read shards.py (a folder of files with a journal), then units.py (what one file is made from), then
generation.py (the loop over them). verification.py asks whether a folder is whole.
"""
