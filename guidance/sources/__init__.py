"""Sources of guidance: each asks a network for something and answers with a direction."""
