"""How the bundled networks were trained, and how to train them again.

Read loop.py (one loop for all), then train_fashion.py and train_minority.py, which are commands.
"""
