"""Results on disk, and the reports that are made from them.

Read results.py (the rows of a benchmark), then report.py (all files of a report), then tables.py
and html.py. Pictures come from figures.py and plots.py.
"""
