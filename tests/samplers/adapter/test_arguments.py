"""No argument is accepted and not read: of diffusers' classes, of our settings, and as keywords."""

import inspect
import json
import re
import warnings
from functools import lru_cache
from typing import Any

import diffusers
import pytest
from helpers import scheduler_classes

import fewstep
from fewstep.samplers.adapter.settings import FIELDS
from fewstep.samplers.adapter.unheard import PIPELINE_KEYS, SOLVER_KEYS, SPACING_KEYS
from fewstep.schedules.diffusers.config import FLOW_CLASSES, TABLE_CLASSES, VE_CLASSES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
NEEDS_TORCHSDE = {"DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"}
PEERS = sorted({*TABLE_CLASSES, *FLOW_CLASSES, *VE_CLASSES, "ScoreSdeVpScheduler"} - NEEDS_TORCHSDE)
PEERS = [name for name in PEERS if hasattr(diffusers, name)]

# A value other than the default, where another number or the opposite will not do.
VALUES: dict[str, Any] = {
    "algorithm_type": "sde-dpmsolver++", "beta_schedule": "scaled_linear", "beta_end": 0.03,
    "beta_start": 0.0005, "disable_corrector": [0], "final_sigmas_type": "sigma_min",
    "interpolation_type": "log_linear", "lambda_min_clipped": -2.0, "num_train_timesteps": 500,
    "prediction_type": "v_prediction", "sampling_eps": 0.01, "shift_terminal": 0.05,
    "sigma_data": 0.7, "sigma_max": 12.0, "sigma_min": 0.1, "sigma_schedule": "exponential",
    "solver_type": "heun", "time_shift_type": "linear", "timestep_spacing": "trailing",
    "timestep_type": "continuous", "trained_betas": [0.001 * (i + 1) for i in range(40)],
    "variance_type": "learned_range", "scale_factors": [0.5, 1.0], "upscale_mode": "nearest",
    "steps_offset": 1, "beta_max": 15.0, "beta_min": 0.2, "final": "sigma_min", "grid": "tan",
}  # fmt: skip
# What an argument needs beside it to mean anything to its own class.
BESIDE: dict[str, dict[str, Any]] = {
    "flow_shift": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "use_dynamic_shifting": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "time_shift_type": {
        "use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True,
    },
    "shift_terminal": {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    "dynamic_thresholding_ratio": {"thresholding": True},
    "sample_max_value": {"thresholding": True},
    "clip_sample_range": {"clip_sample": True},
    "sigma_min": {"use_karras_sigmas": True},
    "sigma_max": {"use_karras_sigmas": True},
    "timestep_type": {"prediction_type": "v_prediction"},
    "steps_offset": {"timestep_spacing": "leading"},
    "use_flow_sigmas": {"prediction_type": "v_prediction"},
    "rescale_betas_zero_snr": {"prediction_type": "v_prediction"},
}  # fmt: skip
# Nothing to obey: their own class does not read them where ours could.
INERT = {
    # Of classes without thresholding.
    ("CogVideoXDDIMScheduler", "sample_max_value"), ("CogVideoXDPMScheduler", "sample_max_value"),
    # Of classes that tell their network a level, of which there is no table.
    *((name, "num_train_timesteps") for name in VE_CLASSES),
}  # fmt: skip
SOLVER_TYPES = {"DEISMultistepScheduler": "logrho", "UniPCMultistepScheduler": "bh1"}


def other(name: str, default: Any) -> Any:
    """A value that is not the default."""
    if name in VALUES and VALUES[name] != default:
        return VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default * 0.5 if default else 0.5
    return {"exponential": "karras", "linear": "exponential"}.get(str(default), 2)


def outcome(cls: type, config: Any, **keywords: Any) -> tuple[Any, ...]:
    """All that a scheduler made from a config does, but for the noise it draws."""
    ours = cls.from_config(config, **keywords)
    mu = {"mu": 0.8} if ours.config.use_dynamic_shifting else {}
    ours.set_timesteps(8, **mu)
    settings = (
        ours.config.prediction_type, ours.config.thresholding and (
            ours.config.dynamic_thresholding_ratio, ours.config.sample_max_value),
        ours.config.get("variance_type") in ("learned", "learned_range"),
    )  # fmt: skip
    return ours.plan.table(), settings, ours._sigma_data


def attempt(*arguments: Any, **keywords: Any) -> tuple[Any, str, list[str]]:
    """The outcome or None, the refusal or "", and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made, refusal = None, ""
        try:
            made = outcome(*arguments, **keywords)
        except ValueError as error:
            refusal = str(error)
    return made, refusal, [str(warning.message) for warning in said]


def accepted(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "kwargs")}


ARGUMENTS = [(name, key) for name in PEERS for key in accepted(name)]


def saved(name: str, **chosen: Any) -> dict[str, Any]:
    """A config as it lies in a folder, with every default spelled out."""
    return {"_class_name": name, **accepted(name), **chosen}


@lru_cache
def by_default(name: str, beside: str) -> Any:
    """The outcome without the argument."""
    return attempt(fewstep.Euler, saved(name, **json.loads(beside)))[0]


@pytest.mark.parametrize(("name", "key"), ARGUMENTS, ids=[".".join(pair) for pair in ARGUMENTS])
def test_every_argument_of_every_class_of_diffusers(name: str, key: str) -> None:
    """It changes the plan, or is refused, or a warning names it, or it is one of the replaced."""
    known = accepted(name)
    beside = {k: v for k, v in BESIDE.get(key, {}).items() if k in known}
    value = SOLVER_TYPES.get(name) if key == "solver_type" else None
    value = value or other(key, known[key])
    if key in ("tau_func", "solver_p"):
        pytest.skip("a function or an object, which no config can keep; a warning says so")
    changed, refusal, said = attempt(fewstep.Euler, saved(name, **{**beside, key: value}))
    if refusal:
        assert key in refusal or name in refusal
        return
    plain = by_default(name, json.dumps(beside))
    named = any(re.search(rf"\b{key}\b", message) for message in said)
    if changed != plain or named or (name, key) in INERT:
        return
    if key == "clip_sample" and not value:
        return  # ours never clip
    assert key in (*SOLVER_KEYS, *SPACING_KEYS, *PIPELINE_KEYS), f"{value!r} is ignored in silence"
    if key in SPACING_KEYS and key != "set_alpha_to_one":  # DDIM's grid of 8 ends above the least
        before = outcome(fewstep.Euler, saved(name, **beside), grid="diffusers")
        config = saved(name, **{**beside, key: value})
        assert outcome(fewstep.Euler, config, grid="diffusers") != before
    if key in PIPELINE_KEYS:
        assert fewstep.Euler.from_config(saved(name, **{key: value})).config[key] == value


def test_the_loop_reaches_most_arguments() -> None:
    assert len(ARGUMENTS) > 250


# --- our own settings, and keywords ---------------------------------------------------------------

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
BASES: dict[str, dict[str, Any]] = {
    "table": saved("DDIMScheduler", **SD, prediction_type="v_prediction", clip_sample=False),
    "flow": saved("FlowMatchEulerDiscreteScheduler", shift=3.0),
    "edm": saved("EDMEulerScheduler"),
}
# Obeyed by each process alike, whatever else is said.
SETTINGS = [key for key in FIELDS if key != "inherited_from"]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_as_a_keyword(base: str, key: str) -> None:
    """It changes the plan, or is refused, or a warning names it."""
    value, config = other(key, FIELDS[key]), BASES[base]
    changed, refusal, said = attempt(fewstep.Euler, config, **{key: value})
    if refusal:
        # A flow needs another prediction type than a table, and no sigma_data.
        assert key in refusal or "prediction" in refusal or "of a flow" in refusal
        return
    if (base, key) == ("flow", "use_flow_sigmas"):
        return  # pipelines that see it send a count in place of levels
    plain = by_default(config["_class_name"], json.dumps(config))
    if value == fewstep.Euler.from_config(config).config[key]:
        return  # the config says so itself
    named = any(f"Euler: {key}=" in message for message in said)
    assert (changed != plain) != named, f"{value!r}: {named=}"


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_of_a_constructor(key: str) -> None:
    value = other(key, FIELDS[key])
    with warnings.catch_warnings(record=True) as constructed:
        warnings.simplefilter("always")
        try:
            ours = fewstep.Euler(**{key: value})
        except ValueError as error:
            ours = error
    if isinstance(ours, ValueError):
        assert key in str(ours) or "prediction" in str(ours)
        return
    changed, refusal, said = attempt(fewstep.Euler, ours.config)
    assert not said  # once: a config that is passed on is not scolded again
    named = [f"Euler: {key}=" in str(warning.message) for warning in constructed]
    if not refusal:
        assert (changed != outcome(fewstep.Euler, fewstep.Euler().config)) != any(named)
    assert named in ([], [True])


@every_class
def test_ordinary_configs_are_taken_in_silence(cls: type) -> None:
    """As they lie in the folders of public models."""
    configs = [
        saved("PNDMScheduler", **SD, skip_prk_steps=True, steps_offset=1, clip_sample=False),
        saved("DDIMScheduler", **SD, set_alpha_to_one=False, steps_offset=1, clip_sample=False),
        saved("EulerDiscreteScheduler", **SD, timestep_spacing="leading", steps_offset=1,
              sample_max_value=1.0, skip_prk_steps=True),
        saved("EulerDiscreteScheduler", **SD, timestep_spacing="trailing"),
        saved("DDPMScheduler", clip_sample=True),
        saved("DDPMScheduler", beta_schedule="squaredcos_cap_v2", thresholding=True,
              variance_type="learned_range", dynamic_thresholding_ratio=0.95, sample_max_value=1.5),
        saved("DPMSolverMultistepScheduler", use_flow_sigmas=True, flow_shift=3.0,
              prediction_type="flow_prediction", solver_order=2),
        saved("UniPCMultistepScheduler", use_flow_sigmas=True, flow_shift=5.0,
              prediction_type="flow_prediction", disable_corrector=[]),
        saved("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True, shift_terminal=0.02),
        saved("FlowMatchHeunDiscreteScheduler", shift=3.0),
        saved("EDMDPMSolverMultistepScheduler", solver_order=2),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for config in configs:
            ours = cls.from_config(config)
            cls.from_config(ours.config).clone()


@pytest.mark.parametrize("make", ["from_config", "constructor"])
def test_names_of_diffusers_are_understood(make: str) -> None:
    def build(cls: type, **keywords: Any) -> Any:
        if make == "constructor":
            return cls(**keywords)
        return cls.from_config(saved("DDIMScheduler", **SD), **keywords)

    dpmpp = fewstep.DPMSolverPP
    assert build(dpmpp, solver_order=3).config.order == 3
    assert build(dpmpp, algorithm_type="sde-dpmsolver++").config.tau == 1
    assert build(dpmpp, algorithm_type="dpmsolver++").config.tau == 0
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    assert build(fewstep.UniPC, shift=5.0, **flow).config.flow_shift == 5
    with pytest.raises(ValueError, match=r"shift=5.0 and flow_shift=3.0 are one argument"):
        build(fewstep.UniPC, shift=5.0, flow_shift=3.0, **flow)
    with pytest.raises(ValueError, match="algorithm_type must be"):
        build(dpmpp, algorithm_type="sde-dpmsolver")
    for cls, key in ((fewstep.UniPC, "algorithm_type"), (fewstep.Heun, "solver_order"),
                     (dpmpp, "euler_at_final"), (fewstep.Euler, "predict_x0")):  # fmt: skip
        with pytest.raises(TypeError, match=f"has no argument '{key}'; it has num_train"):
            build(cls, **{key: 2})
    for key in ("clip_sample", "lambda_min_clipped", "stochastic_sampling"):
        with pytest.raises(TypeError, match=f"no argument '{key}'; write it into the config"):
            build(fewstep.Euler, **{key: True})


def test_noise_of_the_old_solver_is_named_where_the_new_one_has_none() -> None:
    config = saved("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++")
    with pytest.warns(UserWarning, match=r"DPMSolverPP\.from_config\(config, tau=1\.0\)"):
        fewstep.UniPC.from_config(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fewstep.DPMSolverPP.from_config(config, tau=1.0)
        fewstep.EDMStochastic.from_config(config)


@every_class
def test_ends_of_karras_levels(cls: type) -> None:
    """sigma_min and sigma_max of a table of betas, by keyword or in the config."""
    euler = "EulerDiscreteScheduler"
    ends = {"sigma_min": 0.1, "sigma_max": 29.2}
    for switch in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        ours = cls.from_config(saved(euler, **SD), **{switch: True}, **ends)
        ours.set_timesteps(8)
        assert ours.grid.rho[0] == 29.2
        assert ours.grid.rho[-2] == pytest.approx(0.1)
        inherited = cls.from_config(saved(euler, **SD, **{switch: True}, **ends))
        inherited.set_timesteps(8)
        assert inherited.plan == ours.plan
    with pytest.raises(ValueError, match="need 0 < sigma_min < sigma_max"):
        cls.from_config(saved(euler, **SD), use_karras_sigmas=True, sigma_min=20.0).set_timesteps(8)


@every_class
def test_a_shift_survives_every_class(cls: type) -> None:
    """Both of its names are written."""
    flows = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    ours = cls.from_config(BASES["flow"], flow_shift=12.0)
    for peer, key in (
        ("FlowMatchEulerDiscreteScheduler", "shift"), ("FlowMatchHeunDiscreteScheduler", "shift"),
        ("UniPCMultistepScheduler", "flow_shift"), ("DPMSolverMultistepScheduler", "flow_shift"),
    ):  # fmt: skip
        back = getattr(diffusers, peer).from_config(ours.config)
        assert back.config[key] == 12.0
        assert cls.from_config(back.config).config.flow_shift == 12.0
    for made in (cls(**flows, flow_shift=7.0), cls.from_config({**flows, "shift": 7.0})):
        assert (made.config.shift, made.config.flow_shift) == (7.0, 7.0)
