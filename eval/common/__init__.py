"""What several parts of the evaluation need: processes, caches, keys, clocks, words.

Each file stands alone. source_code.py and imports.py are worth a look before results are cached:
they say what code a number depends on.
"""
