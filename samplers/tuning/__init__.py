"""Tuned samplers: tables fitted to a model, its guidance and a number of calls."""

if __name__ != "fewstep.samplers.tuning":
    raise ImportError(f"import fewstep.samplers.tuning, not {__name__}")
