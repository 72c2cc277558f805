"""Feature extractors, and what prepares images for them."""
