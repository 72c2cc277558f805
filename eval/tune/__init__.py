"""What ``fewstep tune`` needs beside the tuning itself: noises, teachers on disk, features."""

if __name__ != "fewstep.eval.tune":
    raise ImportError(f"import fewstep.eval.tune, not {__name__}")
