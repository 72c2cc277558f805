"""What ``fewstep tune`` needs beside the tuning itself: noises, teachers on disk, features.

Read run.py (from a model to a file and a report), then teachers.py (noises and fine solutions).
"""

if __name__ != "fewstep.eval.tune":
    raise ImportError(f"import fewstep.eval.tune, not {__name__}")
