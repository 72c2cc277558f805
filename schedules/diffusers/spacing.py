"""The grid of ours that a config's switches mean, and a flow's shift.

The grid that diffusers itself would use is made in ``peers.py``.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.diffusers.config import FLOW_CLASSES, Config, class_name, is_flow
from fewstep.schedules.grids import Final
from fewstep.schedules.process import Array
from fewstep.schedules.rules import beta_quantiles

ALMOST_NOTHING = 1e-6  # of a sigma in [0, 1]; float32 samples carry 6e-8
ShiftKind = Literal["exponential", "linear"]
# The opt-in switches of a config, in the order in which diffusers looks at them, and their grids.
SWITCHES = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "logsnr",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}


@dataclass(frozen=True)
class GridChoice:
    """Arguments of ``make_grid``, and why.

    Attributes:
        name: a key of ``GRIDS``, or ``"auto"`` if the config asks for none.
        final: ``"zero"`` or ``"sigma_min"``.
        power: of the Karras grid.
        shift: of a flow, 1 for none; a property of the model, so set under ``"auto"`` too.
        reason: for printing.
    """

    name: str
    final: Final
    power: float
    shift: float
    reason: str


def dynamic_shift(mu: float, kind: ShiftKind = "exponential") -> float:
    """The shift s in sigma' = s sigma / (1 + (s - 1) sigma) that diffusers' mu stands for.

    diffusers writes sigma' = m / (m + 1/sigma - 1) with m = exp(mu) or mu, which is that formula
    with s = m.

    Args:
        mu: what resolution-aware pipelines compute; any number, > 0 if ``kind`` is "linear".
        kind: ``time_shift_type`` of the config.

    Raises:
        ValueError: for an unknown kind, or mu <= 0 with "linear".
    """
    if kind == "exponential":
        return math.exp(mu)
    if kind != "linear":
        raise ValueError(f"time_shift_type must be 'exponential' or 'linear', got {kind!r}")
    if not mu > 0:
        raise ValueError(f"mu must be > 0 with time_shift_type='linear', got {mu}")
    return float(mu)


def shift_sigmas(sigmas: ArrayLike, shift: float) -> Array:
    """s sigma / (1 + (s - 1) sigma), for sigma in [0, 1] (SD3, arXiv:2403.03206, eq. 23)."""
    sigma = np.asarray(sigmas, np.float64)
    return np.asarray(shift * sigma / (1 + (shift - 1) * sigma))


def stretch_sigmas(sigmas: ArrayLike, terminal: float | None) -> Array:
    """The last sigma becomes ``terminal``, sigma = 1 stays, linearly between (LTX, Qwen-Image).

    A single level at sigma = 1 cannot be stretched and stays.
    """
    sigma = np.asarray(sigmas, np.float64)
    if not terminal or sigma[-1] >= 1:
        return sigma
    return np.asarray(1 - (1 - sigma) * (1 - terminal) / (1 - sigma[-1]))


def levels_between(name: str, high: float, low: float, n: int, power: float = 7.0) -> Array:
    """n levels from ``high`` to ``low``, as diffusers' three sigma switches and lambdas place them.

    Unlike ours, its beta grid has quantiles of sigma/alpha itself, not of time.
    """
    if name == "karras":
        return np.asarray(np.linspace(high ** (1 / power), low ** (1 / power), n) ** power)
    if name == "beta":
        return low + (high - low) * beta_quantiles(n)
    if not low > 0:
        raise ValueError("exponential levels cannot end at 0: set use_exponential_sigmas=False")
    return np.asarray(np.exp(np.linspace(math.log(high), math.log(low), n)))


def finished_sigmas(config: Config, sigmas: ArrayLike, shift: float) -> Array:
    """What a flow's class of diffusers makes of n levels, its own or given ones, falling.

    They are shifted, stretched to ``shift_terminal``, and replaced by those of a switch
    (``use_karras_sigmas`` and its like) between the same ends, in that order. A last level of 0, to
    which some pipelines set ``scheduler.sigma_min``, is put a little above: a call there has
    nothing left to do, and levels must fall.
    """
    sigma = stretch_sigmas(shift_sigmas(sigmas, shift), terminal_from_config(config))
    switch = switch_from_config(config)
    if switch and len(sigma) > 1:
        sigma = levels_between(switch[0], float(sigma[0]), float(sigma[-1]), len(sigma))
    if len(sigma) > 1 and sigma[-1] == 0:
        sigma[-1] = min(ALMOST_NOTHING, sigma[-2] / 2)
    return sigma


def terminal_from_config(config: Config) -> float | None:
    """Sigma of a flow's last network call, if ``shift_terminal`` says it.

    Raises:
        ValueError: unless it lies in (0, 1).
    """
    terminal = config.get("shift_terminal")
    if not terminal or not is_flow(config):
        return None
    if not 0 < float(terminal) < 1:
        raise ValueError(f"shift_terminal must lie in (0, 1), or be None, got {terminal}")
    return float(terminal)


def shift_from_config(config: Config, mu: float | None = None) -> float:
    """A flow's shift: ``flow_shift`` or ``shift``, or that of ``mu`` under dynamic shifting.

    ``mu`` is ignored without ``use_dynamic_shifting``, since some pipelines always send it. Other
    processes have shift 1.

    Raises:
        ValueError: for dynamic shifting without ``mu``, or a shift that is not positive.
    """
    if not is_flow(config):
        return 1.0
    if config.get("use_dynamic_shifting"):
        if mu is None:
            raise ValueError(
                "use_dynamic_shifting=True needs mu: pass set_timesteps(..., mu=...), or set "
                "use_dynamic_shifting=False and a fixed shift"
            )
        return dynamic_shift(mu, config.get("time_shift_type") or "exponential")
    keys = (
        ("shift", "flow_shift") if class_name(config) in FLOW_CLASSES else ("flow_shift", "shift")
    )
    given = [config[key] for key in keys if config.get(key) is not None]
    shift = float(given[0]) if given else 1.0
    if not shift > 0:
        raise ValueError(f"the shift of a flow must be > 0, got {shift}")
    return shift


def grid_rule_from_config(
    config: Config, *, obey_spacing: bool, mu: float | None = None
) -> GridChoice:
    """The grid of ours that a config asks for.

    The opt-in switches count always, in the order in which diffusers looks at them;
    ``timestep_spacing``, ``final_sigmas_type`` and EDM's ``sigma_schedule`` only if
    ``obey_spacing``, since saved configs spell out every default. ``steps_offset`` is that of
    "leading" here, 1; ``diffusers_grid`` obeys it.

    Args:
        config: of a diffusers or fewstep class.
        obey_spacing: obey settings that may be mere defaults.
        mu: of dynamic shifting.

    Raises:
        ValueError: if two of the three sigma switches are on, for unknown settings, or for
            dynamic shifting without ``mu``.
    """
    final = final_from_config(config) if obey_spacing else "zero"
    name, power, reason = "auto", 7.0, "the config sets no grid"
    switch = switch_from_config(config)
    if switch:
        name, reason = switch[0], f"{switch[1]} is set"
    elif obey_spacing and config.get("sigma_schedule"):
        name = one_of(config, "sigma_schedule", ("karras", "exponential"))
        power, reason = float(config.get("rho") or 7.0), f"sigma_schedule is {name}"
    elif obey_spacing and config.get("timestep_spacing"):
        name = one_of(config, "timestep_spacing", ("linspace", "leading", "trailing"))
        reason = f"timestep_spacing is {name}"
    return GridChoice(name, final, power, shift_from_config(config, mu), reason)


def one_of(config: Config, key: str, allowed: tuple[str, ...]) -> str:
    """The value of a key that must be one of ``allowed``."""
    value = str(config[key])
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def final_from_config(config: Config) -> Final:
    """Where the class of this config ends its grid."""
    value = config.get("final_sigmas_type")
    if value is None:
        # Classes without the key that end at the least level of the table.
        old = class_name(config) in ("DEISMultistepScheduler", "SASolverScheduler")
        return "sigma_min" if old or config.get("set_alpha_to_one") is False else "zero"
    if value not in ("zero", "sigma_min"):
        raise ValueError(f"final_sigmas_type must be 'zero' or 'sigma_min', got {value!r}")
    return "zero" if value == "zero" else "sigma_min"


def switch_from_config(config: Config) -> tuple[str, str] | None:
    """The grid that an opt-in switch names, and the switch, or None."""
    on = [key for key in SWITCHES if config.get(key)]
    if len([key for key in on if key != "use_lu_lambdas"]) > 1:
        raise ValueError(f"only one of {', '.join(on)} may be True: turn the others off")
    return (SWITCHES[on[0]], on[0]) if on else None
