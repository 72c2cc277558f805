"""What a diffusers config says that no scheduler of ours obeys.

Choosing one of our classes replaces the old solver and the old spacing, so their keys are carried
in silence for the way back: ``SOLVER_KEYS`` and ``SPACING_KEYS`` (``grid="diffusers"`` obeys the
latter). Of the rest, and of spacing that is rarely asked for, a warning says what happens instead.
Saved configs spell out every default, so only values that differ from the old class's count.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

# Of the old solver, whose place ours takes.
SOLVER_KEYS = (
    "algorithm_type", "correct_steps", "corrector_order", "disable_corrector", "eta",
    "euler_at_final", "lower_order_final", "predict_x0", "predictor_order", "s_noise",
    "skip_prk_steps", "snr", "solver_order", "solver_p", "solver_type", "variance_type",
)  # fmt: skip
# Of where the old class calls its network; common in saved configs.
SPACING_KEYS = ("set_alpha_to_one", "steps_offset", "timestep_spacing")
# The same, seldom in a config that nobody thought about.
RARE_SPACING_KEYS = (
    "final_sigmas_type", "interpolation_type", "lambda_min_clipped", "rho", "sampling_eps",
    "sigma_schedule",
)  # fmt: skip
# Read by pipelines, which compute mu of dynamic shifting from them.
PIPELINE_KEYS = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
# The constructors of FlowMatchHeun and of FlowMapEuler have these and no other.
_TWINS = {"num_train_timesteps", "shift"}


def warn_unheard(
    name: str,
    origin: str,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> None:
    """Warns of what a foreign config says in vain.

    Args:
        name: of our class.
        origin: the class of the config.
        config: that config, live.
        defaults: of its class's constructor.
        ours: the config that came of it.
    """
    silent = config.get("_use_default_values", ())
    said = {
        key: value
        for key, value in config.items()
        if key in defaults and key not in silent and value != defaults[key]
    }
    for message in _messages(name, origin, said, config, ours):
        warnings.warn(f"{origin}: {message}", stacklevel=4)


def _messages(
    name: str,
    origin: str,
    said: Mapping[str, Any],
    config: Mapping[str, Any],
    ours: Mapping[str, Any],
) -> Iterator[str]:
    placed = ours["grid"] == "diffusers"
    spacing = [key for key in RARE_SPACING_KEYS if key in said and not placed]
    if ours["final"] and "final_sigmas_type" in spacing:
        spacing.remove("final_sigmas_type")
    if origin == "ScoreSdeVpScheduler" and "sampling_eps" in spacing:
        spacing.remove("sampling_eps")  # there it is the least time of the process
    if spacing:
        text = ", ".join(f"{key}={said[key]!r}" for key in spacing)
        end = ", and final='sigma_min' its end" if "final_sigmas_type" in spacing else ""
        yield (
            f"{text} of its config is not obeyed, since {name} has a grid of its own: pass "
            f"grid='diffusers' for the old one{end}"
        )
    clipping = [key for key in ("clip_sample", "clip_sample_range") if key in said]
    if config.get("clip_sample") and clipping:
        text = ", ".join(f"{key}={said[key]!r}" for key in clipping)
        yield (
            f"{text} of its config is not obeyed: pass thresholding=True with sample_max_value= to "
            "bound predictions"
        )
    kind = str(said.get("algorithm_type"))
    adds_noise = name in ("EDMStochastic", "Restart") or ours.get("tau") or ours.get("eta")
    if kind.startswith("sde-") and not adds_noise:
        yield (
            f"algorithm_type={kind!r} of its config adds noise, which {name} does not: "
            "DPMSolverPP.from_config(config, tau=1.0) does"
        )
    if origin == "UnCLIPScheduler":
        yield (
            f"{name} solves the ODE of this prior, without clip_sample and without the noise of "
            "variance_type: keep that scheduler for the published samples"
        )
    keys = {key for key in config if not key.startswith("_")}
    if keys == _TWINS and not config.get("_class_name"):
        yield (
            "this live config may as well be FlowMapEulerDiscreteScheduler's, whose network "
            "predicts mean velocities that no solver applies to: keep that scheduler, or say "
            f"from_config({{**config, '_class_name': {origin!r}}})"
        )
