"""Plans as files: read with every entry checked, and written whole.

Read plan_tables.py (what each entry of a file must be), then plan_sense.py (whether a table whose
entries are right is a sampler of its noise process). json_values.py reads JSON from anybody.
"""
