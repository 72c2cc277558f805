"""What the user's own arguments mean: none of them is taken and not read.

An argument that nothing obeys beside the others is said in a warning, once, with what to write
instead. That concerns the arguments of a constructor or of ``from_config``; what a config of
another class says is :mod:`fewstep.samplers.adapter.unheard`'s part.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fewstep.schedules.diffusers.spacing import SWITCHES, switch_from_config
from fewstep.schedules.process import VE, ContinuousVP, DiscreteVP, Flow, NoiseProcess

_quiet: ContextVar[bool] = ContextVar("fewstep_arguments_are_inherited", default=False)
# Grids between two levels, which sigma_min and sigma_max of a table of betas may move.
RANGED = tuple(SWITCHES.values())
_READ_FROM_CONFIGS = (
    "clip_sample", "clip_sample_range", "interpolation_type", "lambda_min_clipped", "rho",
    "set_alpha_to_one", "sigma_schedule", "snr_shift_scale", "invert_sigmas", "stochastic_sampling",
)  # fmt: skip


@contextmanager
def inherited() -> Iterator[None]:
    """Constructors in here are called with a config's entries, which no user has typed."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def no_argument(cls: str, name: str, known: Mapping[str, Any]) -> TypeError:
    """The refusal of an argument, with those that there are."""
    remedy = f"it has {', '.join(key for key in known if key != 'self')}"
    if name in _READ_FROM_CONFIGS:
        remedy = f"write it into the config, from_config({{**config, {name!r}: ...}}); {remedy}"
    return TypeError(f"{cls} has no argument {name!r}; {remedy}")


def in_our_words(arguments: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of diffusers' classes under our names, where a class of ours has them.

    Args:
        arguments: as they were given.
        known: those of the class of ours.

    Raises:
        ValueError: if one is given by both names, or asks for another solver.
    """
    result = dict(arguments)
    for theirs, ours in (("shift", "flow_shift"), ("solver_order", "order")):
        if theirs in result and theirs not in known and ours in known:
            value = result.pop(theirs)
            if result.setdefault(ours, value) != value:
                raise ValueError(
                    f"{theirs}={value} and {ours}={result[ours]} are one argument: give one of them"
                )
    kind = result.get("algorithm_type")
    if kind is not None and {"tau", "solver_type"} <= known.keys():  # the DPM-Solver++ family
        if kind not in ("dpmsolver++", "sde-dpmsolver++"):
            raise ValueError(
                f"algorithm_type must be 'dpmsolver++' or 'sde-dpmsolver++' (tau=1.0), got "
                f"{kind!r}: solvers in the form of noise are not here, DEIS is fewstep.DEIS"
            )
        del result["algorithm_type"]
        if kind.startswith("sde"):
            result.setdefault("tau", 1.0)
    return result


def warn_unread(
    name: str, arguments: Mapping[str, Any], config: Mapping[str, Any], process: NoiseProcess
) -> None:
    """Warns of arguments that the others leave without effect.

    Args:
        name: of the class.
        arguments: of a constructor or of ``from_config``, in our words.
        config: what came of them.
        process: of that config.

    Raises:
        ValueError: for EDM's ``sigma_data`` with a noise process that is not EDM's.
    """
    if _quiet.get():
        return
    if config.get("sigma_data") is not None and not isinstance(process, VE):
        raise ValueError(
            "sigma_data belongs to EDM models: give sigma_max too, without a table of betas, or "
            "leave sigma_data out"
        )
    for keys, read, remedy in _CONDITIONS:
        for key in keys:
            value = arguments.get(key)
            if value is None or value is False or read(key, value, config, process):
                continue
            warnings.warn(f"{name}: {key}={value!r} has no effect: {remedy}", stacklevel=3)


Read = Callable[[str, Any, Mapping[str, Any], NoiseProcess], bool]


def _named(config: Mapping[str, Any]) -> str | None:
    """The grid that the config names, or its switch, if any."""
    if config["grid"] not in (None, "auto"):
        return str(config["grid"])
    switch = switch_from_config(config)
    return switch[0] if switch else None


def _range_read(key: str, value: Any, config: Mapping[str, Any], process: NoiseProcess) -> bool:
    if isinstance(process, DiscreteVP):
        switched = config["grid"] == "diffusers" and switch_from_config(config)
        return bool(switched) or _named(config) in RANGED
    return isinstance(process, VE)


def _spacing_read(key: str, value: Any, config: Mapping[str, Any], process: NoiseProcess) -> bool:
    return _named(config) in (None, "diffusers", value) and config["grid"] != "auto"


_CONDITIONS: tuple[tuple[tuple[str, ...], Read, str], ...] = (
    (
        ("beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
        lambda k, v, c, p: isinstance(p, DiscreteVP) or c["beta_schedule"] == v == "linear",
        "a flow, and a process with sigma_max, has no table of betas; leave it out",
    ),
    (
        ("beta_start", "beta_end"),
        lambda k, v, c, p: (
            isinstance(p, DiscreteVP)
            and c["trained_betas"] is None
            and c["beta_schedule"] in ("linear", "scaled_linear", "sigmoid")
        ),
        "it belongs to beta_schedule 'linear', 'scaled_linear' and 'sigmoid'; leave it out",
    ),
    (
        ("num_train_timesteps",),
        lambda k, v, c, p: (
            not isinstance(p, VE | ContinuousVP) and v == getattr(p, "num_train_timesteps", v)
        ),
        "the length of trained_betas counts, and a process without a table has none; leave it out",
    ),
    (
        ("flow_shift",),
        lambda k, v, c, p: isinstance(p, Flow) and not c["use_dynamic_shifting"],
        "only flows are shifted (use_flow_sigmas=True), and mu of the pipeline counts under "
        "use_dynamic_shifting: pass use_dynamic_shifting=False",
    ),
    (
        ("use_dynamic_shifting", "shift_terminal"),
        lambda k, v, c, p: isinstance(p, Flow),
        "only flows are shifted: pass use_flow_sigmas=True, or leave it out",
    ),
    (
        ("time_shift_type",),
        lambda k, v, c, p: isinstance(p, Flow) and c["use_dynamic_shifting"],
        "it belongs to use_dynamic_shifting=True of a flow",
    ),
    (
        ("dynamic_thresholding_ratio", "sample_max_value"),
        lambda k, v, c, p: c["thresholding"],
        "pass thresholding=True",
    ),
    (
        ("sigma_min", "sigma_max"),
        _range_read,
        "of this noise process it moves the ends of karras, exponential, beta and logsnr grids "
        "only: pass use_karras_sigmas=True or its like, or sigmas= to set_timesteps",
    ),
    (
        ("timestep_spacing",),
        _spacing_read,
        "another grid is asked for beside it; leave one of the two out",
    ),
    (
        ("steps_offset",),
        lambda k, v, c, p: c["grid"] == "diffusers" or (v == 1 and _named(c) == "leading"),
        "our 'leading' grid has offset 1; pass grid='diffusers'",
    ),
    (
        ("final",),
        lambda k, v, c, p: c["grid"] != "diffusers" or c["final_sigmas_type"] == v,
        "grid='diffusers' ends where final_sigmas_type says: pass that",
    ),
    (
        tuple(SWITCHES),
        lambda k, v, c, p: c["grid"] in (None, "auto", "diffusers", SWITCHES[k]),
        "grid= names another grid; leave one of the two out",
    ),
)
