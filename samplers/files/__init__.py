"""Plans as files: read with every entry checked, and written whole."""
