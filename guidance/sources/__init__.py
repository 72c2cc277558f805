"""Sources of guidance: each asks a network for something and answers with a direction.

Read contrast.py (:class:`CFG` and :class:`Autoguidance`, the difference of two predictions), then
independent.py (a worse prediction of the same network), then gradients.py (classifiers and
energies).
"""
