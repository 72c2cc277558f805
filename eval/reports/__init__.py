"""Results on disk, and the reports that are made from them."""
