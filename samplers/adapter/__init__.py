"""The diffusers side: schedulers whose `step` runs one evaluation of a plan.

Read base.py (what every class does), then schedulers.py (one class for each method), then choose.py
(which grid a config asks for). settings.py has the config of our classes, foreign.py the reading of
others'; index.py and trajectory.py follow a run; the rest is what pipelines and scripts do to a
scheduler beside calling ``step``.
"""
