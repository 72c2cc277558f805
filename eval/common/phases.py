"""The phases of a run whose seconds are counted, as they are called everywhere."""

PHASES = ("network", "solver", "decode", "features", "save")
