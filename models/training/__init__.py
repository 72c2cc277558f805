"""How the bundled networks were trained, and how to train them again."""
