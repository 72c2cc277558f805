if __name__ != "fewstep.eval":
    raise ImportError(f"import fewstep.eval, not {__name__}")
