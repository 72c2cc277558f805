"""The part of a run that a Gaussian explains, in closed form."""
