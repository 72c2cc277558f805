"""The part of a run that a Gaussian explains, in closed form.

Read gaussian.py (what a Gaussian predicts, and the flow that follows), then teleport.py (a run that
begins where the flow has taken the noise), then warm.py (the same, with a history to look back at).
fit.py fits one to samples, class_gaussians.py keeps one for each class, and landing.py says how
far down one may stand in for a model.
"""
