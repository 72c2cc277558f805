r"""The coefficients behind every solver here: interpolants integrated against an exponential.

Going from s to t with h = lambda_t - lambda_s, the data form of the reverse SDE with noise scale
tau (SA-Solver, arXiv:2309.05019, eq. 14; tau = 0 is the ODE) is solved by

    x_t = a x_s + b sum_j w_j m_j + nu noise,    a = sigma_t / sigma_s exp(-tau^2 h),  b = alpha_t,
    nu = sigma_t sqrt(1 - exp(-2 tau^2 h)),      w_j = int_0^1 z exp(-z (1 - s)) l_j(s) ds,

with z = (1 + tau^2) h and l_j the Lagrange basis on the nodes s_j = (lambda_j - lambda_s) / h: 0 is
the current point, history is negative, 1 the target. All weights are sums of the moments M_n(z) of
that exponential. Since sum_j w_j = M_0, every method is exact for constant m.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from fewstep.schedules.process import Array

Rule = Literal["exact", "half-step", "half-moment"]


def moments(z: float, count: int) -> Array:
    r"""M_n(z) = int_0^1 z e^{-z(1-s)} s^n ds for n < count; z != 0, of either sign, or inf.

    M_0 = 1 - e^{-z} and M_n = 1 - n M_{n-1} / z. The recursion cancels for small z, where the
    series M_n = z sum_j (-z)^j n! / (n+1+j)! is used instead.
    """
    result = np.empty(count)
    if abs(z) < 0.5:
        for n in range(count):
            term, total, j = 1.0 / (n + 1), 0.0, 0
            while abs(term) > 1e-18:
                total += term
                j += 1
                term *= -z / (n + 1 + j)
            result[n] = z * total
        return result
    result[0] = -math.expm1(-z)
    for n in range(1, count):
        result[n] = 1 - n * result[n - 1] / z
    return result


def lagrange(nodes: Sequence[float]) -> Array:
    """(k, k) coefficients c[j, n] of l_j(s) = sum_n c[j, n] s^n on k distinct nodes."""
    basis = []
    for j, node in enumerate(nodes):
        others = [other for i, other in enumerate(nodes) if i != j]
        polynomial = np.poly(others)[::-1] if others else np.ones(1)
        basis.append(polynomial / np.prod([node - other for other in others]))
    return np.array(basis, np.float64)


def exponential_weights(nodes: Sequence[float], z: float, rule: Rule = "exact") -> Array:
    """(k,) weights of the outputs at ``nodes``, the first of which must be 0.

    Args:
        nodes: normalised positions s_j, distinct.
        z: (1 + tau^2) h, or -h in the noise form.
        rule: how a pair of nodes weighs the slope D = (m_1 - m_0) / s_1: ``"exact"`` by M_1,
            ``"half-step"`` by z / 2 (UniPC's bh1), ``"half-moment"`` by M_0 / 2 (UniPC's bh2 and
            the midpoint form of DPM-Solver++). With three or more nodes all three agree (UniPC,
            arXiv:2302.04867, eq. 11: B(h) cancels), so it is ignored there.
    """
    moment = moments(z, max(len(nodes), 2))
    if len(nodes) == 2:
        slope = {"exact": moment[1], "half-step": z / 2, "half-moment": moment[0] / 2}[rule]
        return np.array([moment[0] - slope / nodes[1], slope / nodes[1]])
    return lagrange(nodes) @ moment[: len(nodes)]


def official_third_order(nodes: Sequence[float], z: float) -> Array:
    """(3,) weights of DPM-Solver++(3M) as published: the second difference counts half.

    arXiv:2211.01095, algorithm 2 in the official code. M_0 m_0 + M_1 D_1 + kappa M_2 D_2 with
    kappa = 1/2 instead of 1 makes the method second order; published FIDs of "3M" use it.
    """
    _, first, second = nodes
    unit = np.eye(3)
    slope_a = (unit[1] - unit[0]) / first
    slope_b = (unit[2] - unit[1]) / (second - first)
    curvature = (slope_b - slope_a) / second
    derivative = slope_a - first * curvature
    moment = moments(z, 3)
    return np.asarray(moment @ np.stack([unit[0], derivative, curvature / 2]))
