"""Configs of checkpoints whose network does not predict what a diffusion ODE needs.

A distilled network jumps to clean data from a few levels, and its scheduler adds noise anew between
the jumps. A solver takes the prediction for a posterior mean, and its samples come out blurred or
burnt, at any number of calls and without an error. ``REFUSED`` of
:mod:`fewstep.schedules.diffusers.config` has the classes whose noise process cannot be represented
either.
"""

from fewstep.schedules.diffusers.config import Config, class_name

_LCM = (
    "its network is a latent consistency model: it jumps to clean data, and fresh noise goes on top"
)
_INSTEAD = (
    "; an ODE solver does not apply, so keep that scheduler. If only the class is wrong and the "
    "network is an ordinary diffusion model, say so with from_config({{**config, {0}}})"
)
_CLASSES = {
    "LCMScheduler": (_LCM, '"_class_name": "DDIMScheduler"'),
    "TCDScheduler": (
        "its network is a trajectory consistency model: it jumps along the path, and fresh noise "
        "goes on top",
        '"_class_name": "DDIMScheduler"',
    ),
    "FlowMatchLCMScheduler": (_LCM, '"_class_name": "FlowMatchEulerDiscreteScheduler"'),
}
_STOCHASTIC = (
    "its network is distilled: it jumps to clean data, and fresh noise goes on top "
    "(stochastic_sampling=True)",
    '"stochastic_sampling": False',
)
_UNCLIP = (
    "its decoder and super-resolution networks were made for clipped predictions with noise of "
    "their own after each call, the last by another network",
    '"_class_name": "DDPMScheduler"',
)


def why_no_ode(config: Config) -> str | None:
    """What the network of a config is, and what to do, in one line; None if a solver applies.

    The prior of unCLIP and Kandinsky (``prediction_type="sample"``) is an ordinary diffusion model
    of embeddings, and may be solved.
    """
    name = class_name(config)
    reason = _CLASSES.get(name)
    if config.get("stochastic_sampling"):
        name, reason = name or "FlowMatchEulerDiscreteScheduler", _STOCHASTIC
    if name == "UnCLIPScheduler" and config.get("prediction_type") != "sample":
        reason = _UNCLIP
    if reason is None:
        return None
    return f"{name}: {reason[0]}{_INSTEAD.format(reason[1])}"
