"""Feature extractors, and what prepares images for them.

Read extractors.py (what an extractor is), then families.py (all by name), then micro_batches.py
(features that do not depend on the batch). The rest is FID's Inception network.
"""
