"""The solvers: from a grid of noise levels to the table of a method.

Read ddim.py (one output a step), then multistep.py (what all methods with a history share), then
dpmpp.py, unipc.py and deis.py, which are a few lines each. weights.py has the integrals of
polynomials behind their coefficients, spec.py reads ``"unipc:order=2"``, registry.py has every
method by name, and auto.py the grid that each takes unless told otherwise.
"""

# Whoever imports one solver can name every other, as Restart does: this fills spec.SAMPLERS.
from fewstep.samplers.solvers import registry as registry
