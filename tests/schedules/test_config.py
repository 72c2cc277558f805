"""Configs of every diffusers scheduler: the process, the grid of ours, and diffusers' own grid."""

import inspect
import math
import warnings

import diffusers
import diffusers.schedulers as peers
import numpy as np
import pytest
import torch

from fewstep.schedules import (
    VE,
    ContinuousVP,
    DiscreteVP,
    Flow,
    diffusers_grid,
    discrete_vp,
    dynamic_shift,
    from_diffusers_config,
    grid_rule_from_config,
    make_grid,
    shift_from_config,
)
from fewstep.schedules.diffusers.config import FLOW_CLASSES, REFUSED, TABLE_CLASSES, VE_CLASSES

# The peers' own: numpy 2 and torch tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# Needs torchsde, which the peers' dummy objects stand for when it is missing.
OPTIONAL = {"CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler"}
# Those of older versions for jax aside.
NAMES = {
    name
    for name in dir(peers) + dir(diffusers)
    if name.endswith("Scheduler") and not name.startswith("Flax")
}
KNOWN = {*TABLE_CLASSES, *FLOW_CLASSES, *VE_CLASSES, *REFUSED, "ScoreSdeVpScheduler"}
ABSTRACT = {"SchedulerMixin", "FlaxSchedulerMixin"}
NUDGING = ("DPMSolverMultistep", "EulerDiscrete", "EulerAncestral", "UniPC")
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DPM = "DPMSolverMultistepScheduler"
UNIPC = "UniPCMultistepScheduler"
# Before it took sigmas=, UniPC counted a flow's levels as DPM-Solver does, from 1 - 1/N.
COUNTS_FROM_ONE = "sigmas" in inspect.signature(getattr(peers, UNIPC).set_timesteps).parameters


def arguments(name: str) -> dict:
    signature = inspect.signature(getattr(peers, name).__init__).parameters
    return {key: value.default for key, value in signature.items()}


def build(name: str, **kwargs):
    if name in OPTIONAL and not hasattr(getattr(peers, name, None), "set_timesteps"):
        pytest.skip(f"{name} needs torchsde")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(peers, name)(**kwargs)


def config_of(peer) -> dict:
    """As saved: a config has no ``_class_name`` before that."""
    return {**peer.config, "_class_name": type(peer).__name__}


def tables_of(name: str) -> list[dict]:
    """Settings of each kind of table that the class accepts."""
    accepted = arguments(name)
    cases: list[dict] = []
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"):
        try:
            build(name, **({"beta_schedule": schedule}))
        except (NotImplementedError, ValueError):
            continue
        cases.append({"beta_schedule": schedule})
    if "trained_betas" in accepted:
        betas = np.linspace(0.001, 0.3, 40)
        # RePaint takes an array only.
        cases.append({"trained_betas": betas if name == "RePaintScheduler" else betas.tolist()})
        cases[-1]["num_train_timesteps"] = 40
    if "rescale_betas_zero_snr" in accepted:
        cases += [case | {"rescale_betas_zero_snr": True} for case in cases]
    if "snr_shift_scale" in accepted:
        cases += [case | {"snr_shift_scale": 1.0} for case in cases]
    return cases


TABLES = [
    pytest.param(name, case, id=f"{name}-{i}")
    for name in sorted(TABLE_CLASSES.keys() - OPTIONAL)
    for i, case in enumerate(tables_of(name))
]


def test_every_scheduler_of_diffusers_is_decided() -> None:
    assert not NAMES - ABSTRACT - KNOWN
    assert len(TABLES) > 100


@pytest.mark.parametrize(("name", "case"), TABLES)
def test_table_equals_the_peers(name: str, case: dict) -> None:
    peer = build(name, **case)
    process = from_diffusers_config(config_of(peer))
    assert isinstance(process, DiscreteVP)
    zero_snr = bool(case.get("rescale_betas_zero_snr"))
    acp = peer.alphas_cumprod.double().numpy()
    used = slice(None, -1) if zero_snr and name.startswith(NUDGING) else slice(None)
    alpha, sigma = process.alpha_sigma(np.arange(len(acp)))
    # Peers multiply 1000 float32 factors: 1e-6 is the roundings' random walk (it is not reached
    # by the squares of most), and sigma is a root of 1 - acp, where 6e-8 may be all of it.
    assert np.abs(alpha**2 - acp)[used].max() < 1.5e-6
    assert np.abs(sigma**2 - (1 - acp))[used].max() < 1.5e-6
    if zero_snr:
        assert alpha[-1] == 0
        assert sigma[-1] == 1
        return
    # The same betas multiplied in float64 leave their own rounding only: 1e-6 of add_noise.
    shift = getattr(peer.config, "snr_shift_scale", 1.0)
    exact = np.cumprod(1 - peer.betas.double().numpy())
    exact = exact / (shift + (1 - shift) * exact)
    assert np.abs(alpha - np.sqrt(exact)).max() < 1e-6
    assert np.abs(sigma - np.sqrt(1 - exact)).max() < 1e-6


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "LCMScheduler", "TCDScheduler"])
def test_add_noise_itself(name: str) -> None:
    peer = build(name, beta_schedule="scaled_linear")
    time = torch.arange(1000)
    one, zero = torch.ones(1000, 1, 1, 1), torch.zeros(1000, 1, 1, 1)
    alpha, sigma = from_diffusers_config(config_of(peer)).alpha_sigma(np.arange(1000))
    signal = peer.add_noise(one, zero, time).flatten().double().numpy()
    noise = peer.add_noise(zero, one, time).flatten().double().numpy()
    assert np.abs(signal - alpha).max() < 1e-6
    # 1 - acp of float32 near acp = 1: half a rounding (3e-8) over 2 sigma, sigma >= 0.01.
    assert (np.abs(noise - sigma) * 2 * sigma).max() < 1.5e-6


@pytest.mark.parametrize("name", sorted(TABLE_CLASSES))
def test_defaults_of_incomplete_configs(name: str) -> None:
    if name in OPTIONAL:
        accepted = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
    else:
        accepted = arguments(name)
    start, end, schedule = TABLE_CLASSES[name]
    assert (accepted.get("beta_start", start), accepted.get("beta_end", end)) == (start, end)
    assert accepted["beta_schedule"] == schedule
    full = {key: v for key, v in accepted.items() if key not in ("self", "kwargs")}
    bare = from_diffusers_config({"_class_name": name})
    assert bare == from_diffusers_config({"_class_name": name, **full})


@pytest.mark.parametrize("name", [name for name in FLOW_CLASSES if hasattr(peers, name)])
def test_flow_classes(name: str) -> None:
    peer = build(name)
    process = from_diffusers_config(config_of(peer))
    assert process == Flow(1000, 1e-3)
    if name == "FlowMatchEulerDiscreteScheduler":
        one, zero = torch.ones(1000, 1), torch.zeros(1000, 1)
        alpha, sigma = process.alpha_sigma(peer.timesteps.double().numpy())
        noise = peer.scale_noise(zero, peer.timesteps, one).flatten().numpy()
        signal = peer.scale_noise(one, peer.timesteps, zero).flatten().numpy()
        assert np.abs(noise - sigma).max() < 1e-6
        assert np.abs(signal - alpha).max() < 1e-6


@pytest.mark.parametrize("key", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
def test_any_class_may_be_a_flow(key: dict) -> None:
    assert from_diffusers_config(config_of(build(DPM, **key))) == Flow(1000, 1e-3)
    assert from_diffusers_config({"_class_name": "UniPC", **SD, **key}) == Flow(1000, 1e-3)


def test_edm_classes() -> None:
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        peer = build(name, sigma_max=50.0)
        process = from_diffusers_config(config_of(peer))
        assert process == VE(0.002, 50.0, "log")
        peer.set_timesteps(12)
        levels = peer.sigmas[:-1].double().numpy()
        assert np.allclose(process.alpha_sigma(peer.timesteps.double().numpy())[1], levels)
    cosine = from_diffusers_config({"_class_name": "CosineDPMSolverMultistepScheduler"})
    assert cosine == VE(0.3, 500.0, "atan")
    assert float(cosine.time(1.0)) == pytest.approx(0.5)


def test_score_sde_classes() -> None:
    assert from_diffusers_config(config_of(build("ScoreSdeVeScheduler"))) == VE(0.01, 1348.0)
    process = from_diffusers_config(config_of(build("ScoreSdeVpScheduler", beta_max=18)))
    assert process == ContinuousVP(0.1, 18.0, t_min=1e-3)


def test_stable_video_diffusion_is_edm() -> None:
    config = {**SD, "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}
    config |= {"use_karras_sigmas": True, "prediction_type": "v_prediction"}
    peer = build("EulerDiscreteScheduler", **config)
    process = from_diffusers_config(config_of(peer))
    assert process == VE(0.002, 700.0, "log")
    peer.set_timesteps(25)
    grid = diffusers_grid(process, config_of(peer), 25)
    assert np.allclose(grid.rho, peer.sigmas.double().numpy(), rtol=1e-5)
    assert np.allclose(grid.time[:-1], peer.timesteps.double().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name} has no fewstep noise process: .*(keep|use) "
    ) as error:
        from_diffusers_config({"_class_name": name, **SD})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "process"),
    [
        (SD, discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)),
        (
            {"_class_name": "Mine", "trained_betas": [0.1, 0.2]},
            discrete_vp(trained_betas=[0.1, 0.2]),
        ),
        ({"beta_min": 0.2, "beta_max": 10}, ContinuousVP(0.2, 10.0)),
        ({"sigma_min": 0.1, "sigma_max": 9, "sigma_data": 0.5}, VE(0.1, 9.0, "log")),
        ({"sigma_min": 0.1, "sigma_max": 9}, VE(0.1, 9.0)),
        ({"shift": 3.0, "num_train_timesteps": 500}, Flow(500, 1 / 500)),
    ],
)
def test_unknown_classes_are_read_by_their_keys(config: dict, process) -> None:
    assert from_diffusers_config(config) == process


NAMELESS = sorted({*TABLE_CLASSES, *FLOW_CLASSES, *VE_CLASSES, "ScoreSdeVpScheduler"} - OPTIONAL)


@pytest.mark.parametrize("name", [n for n in NAMELESS if n != "LTXEulerAncestralRFScheduler"])
def test_config_of_a_scheduler_just_built_has_no_class_name(name: str) -> None:
    peer = build(name)
    assert "_class_name" not in peer.config
    assert from_diffusers_config(peer.config) == from_diffusers_config(config_of(peer))


@pytest.mark.parametrize(
    "name",
    ["CMStochasticIterativeScheduler", "HeliosScheduler", "IPNDMScheduler", "KarrasVeScheduler",
     "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler", "PiflowScheduler", "SCMScheduler"],
)  # fmt: skip
def test_misleading_configs_without_class_name_are_refused(name: str) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"this diffusers has no {name}")
    with pytest.raises(ValueError, match=r"no fewstep noise process|cannot tell"):
        from_diffusers_config(build(name).config)


def test_configs_that_say_nothing() -> None:
    with pytest.raises(ValueError, match=r"Mine from its keys .*give it beta_schedule"):
        from_diffusers_config({"_class_name": "Mine", "solver_order": 2})
    with pytest.raises(ValueError, match="unknown beta_schedule 'quadratic'"):
        from_diffusers_config({**SD, "beta_schedule": "quadratic"})
    with pytest.raises(ValueError, match="invert_sigmas"):
        from_diffusers_config({"_class_name": FLOW_CLASSES[0], "invert_sigmas": True})
    with pytest.raises(TypeError, match="a mapping"):
        from_diffusers_config("scheduler_config.json")  # type: ignore[arg-type]


# --- the grid of ours -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "obey", "name"),
    [
        ({"use_karras_sigmas": True}, False, "karras"),
        ({"use_exponential_sigmas": True}, False, "exponential"),
        ({"use_beta_sigmas": True}, False, "beta"),
        ({"use_lu_lambdas": True}, False, "logsnr"),
        ({"timestep_spacing": "trailing"}, False, "auto"),
        ({"timestep_spacing": "trailing"}, True, "trailing"),
        ({"timestep_spacing": "leading", "use_karras_sigmas": True}, True, "karras"),
        ({"sigma_schedule": "exponential"}, True, "exponential"),
        ({"sigma_schedule": "exponential"}, False, "auto"),
        ({}, True, "auto"),
    ],
)
def test_grid_rule(keys: dict, obey: bool, name: str) -> None:
    choice = grid_rule_from_config({**SD, **keys}, obey_spacing=obey)
    assert choice.name == name
    assert choice.shift == 1
    assert choice.reason
    if name != "auto":
        process = from_diffusers_config({**SD, **keys})
        assert make_grid(process, 6, choice.name, final=choice.final, power=choice.power).nfe == 6


def test_grid_rule_final_and_power() -> None:
    config = {**SD, "final_sigmas_type": "sigma_min"}
    assert grid_rule_from_config(config, obey_spacing=False).final == "zero"
    assert grid_rule_from_config(config, obey_spacing=True).final == "sigma_min"
    edm = config_of(build("EDMEulerScheduler", rho=5.0))
    assert grid_rule_from_config(edm, obey_spacing=True).power == 5.0
    with pytest.raises(ValueError, match="final_sigmas_type must be"):
        grid_rule_from_config({"final_sigmas_type": "none"}, obey_spacing=True)
    with pytest.raises(ValueError, match="timestep_spacing must be one of linspace"):
        grid_rule_from_config({"timestep_spacing": "even"}, obey_spacing=True)


def test_two_switches_are_refused_in_one_line() -> None:
    config = {**SD, "use_karras_sigmas": True, "use_beta_sigmas": True}
    message = "only one of use_karras_sigmas, use_beta_sigmas may be True"
    for call in (
        lambda: grid_rule_from_config(config, obey_spacing=False),
        lambda: diffusers_grid(from_diffusers_config(config), config, 5),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_shift_of_flows() -> None:
    assert shift_from_config(config_of(build(FLOW_CLASSES[0], shift=3.0))) == 3.0
    assert shift_from_config(config_of(build(DPM, use_flow_sigmas=True, flow_shift=5.0))) == 5.0
    assert shift_from_config({**SD, "flow_shift": 5.0}) == 1.0  # not a flow
    # Pipelines of Flux's kind always send mu.
    assert shift_from_config(config_of(build(FLOW_CLASSES[0], shift=3.0)), mu=1.0) == 3.0
    config = config_of(build(FLOW_CLASSES[0], use_dynamic_shifting=True))
    assert grid_rule_from_config(config, obey_spacing=False, mu=1.0).shift == math.e
    with pytest.raises(ValueError, match="needs mu: pass set_timesteps"):
        grid_rule_from_config(config, obey_spacing=False)
    with pytest.raises(ValueError, match="must be > 0"):
        shift_from_config({"_class_name": FLOW_CLASSES[0], "shift": 0.0})


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shift_is_the_peers_time_shift(kind) -> None:
    peer = build(FLOW_CLASSES[0], use_dynamic_shifting=True, time_shift_type=kind)
    sigma = np.linspace(0.01, 1, 30)
    s = dynamic_shift(0.8, kind)
    assert np.allclose(s * sigma / (1 + (s - 1) * sigma), peer.time_shift(0.8, 1.0, sigma))


def test_dynamic_shift_refuses() -> None:
    with pytest.raises(ValueError, match="'exponential' or 'linear'"):
        dynamic_shift(1.0, "cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mu must be > 0"):
        dynamic_shift(-1.0, "linear")


# --- diffusers' own grid --------------------------------------------------------------------------

SPACINGS = [
    {"timestep_spacing": spacing, "steps_offset": offset}
    for spacing in ("linspace", "leading", "trailing")
    for offset in (0, 1)
]
SWITCHES = ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"]
COUNTS = [1, 2, 3, 10, 33, 48]


def compare(name: str, n: int, *, mu: float | None = None, **kwargs):
    """Our grid and the peer after set_timesteps, both of n calls.

    Ours gets the peer's float32 table, so that the placing alone is compared: the roundings of
    1 - alpha^2 cost the lowest and highest levels up to three digits.
    """
    peer = build(name, **kwargs)
    peer.set_timesteps(n, **({} if mu is None else {"mu": mu}))
    config = config_of(peer)
    process = from_diffusers_config(config)
    if isinstance(process, DiscreteVP):
        squares = peer.alphas_cumprod.double().numpy().copy()
        squares[-1] *= not config.get("rescale_betas_zero_snr")
        process = DiscreteVP(tuple(squares.tolist()))
    return diffusers_grid(process, config, n, mu=mu), peer


def levels(peer) -> np.ndarray:
    """The peer's sigmas as ratios."""
    sigma = peer.sigmas.double().numpy()
    flow = getattr(peer.config, "use_flow_sigmas", "Flow" in type(peer).__name__)
    with np.errstate(divide="ignore"):
        return sigma / (1 - sigma) if flow else sigma


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", [DPM, "UniPCMultistepScheduler"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_spacing_of_the_dpm_family(name: str, schedule: str, spacing: dict, final: str) -> None:
    for n in COUNTS:
        grid, peer = compare(name, n, beta_schedule=schedule, final_sigmas_type=final, **spacing)
        assert np.allclose(grid.rho, levels(peer), rtol=1e-5, atol=0)  # float32
        assert np.array_equal(grid.time[:-1], peer.timesteps.double().numpy())


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_sigma_switches_of_dpm(switch: str, schedule: str) -> None:
    for n in COUNTS:
        grid, peer = compare(DPM, n, beta_schedule=schedule, **{switch: True})
        assert np.allclose(grid.rho, levels(peer), rtol=1e-5, atol=0)  # float32
        # Their times are rounded, or cut, to integers, after interpolating in ln(sigma), not in
        # ln(alpha), which moves them by less than 0.02.
        late = grid.time[:-1] - peer.timesteps.double().numpy()
        rounded = schedule != "squaredcos_cap_v2" and switch in (
            "use_karras_sigmas",
            "use_lu_lambdas",
        )
        low, high = (-0.52, 0.52) if rounded else (-0.02, 1.02)
        assert low <= late.min() <= late.max() <= high
        # Ours agree with the levels and never repeat.
        assert np.all(np.diff(grid.time[:-1]) < 0)
        assert np.allclose(grid.process.rho(grid.time[:-1]), grid.rho[:-1], rtol=1e-9)


def test_repeated_times_of_the_peer() -> None:
    grid, peer = compare(DPM, 20, beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True)
    assert len(set(peer.timesteps.tolist())) < 20  # diffusers #12771
    assert len(set(grid.time[:-1].tolist())) == 20


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "LMSDiscreteScheduler"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("switch", [None, *SWITCHES[:3]])
def test_k_diffusion_classes(name: str, spacing: dict, switch: str | None) -> None:
    for n in COUNTS[1:]:
        grid, peer = compare(name, n, **SD, **spacing, **({switch: True} if switch else {}))
        assert np.allclose(grid.rho, levels(peer), rtol=1e-5, atol=0)
        off = np.abs(grid.time[:-1] - peer.timesteps.double().numpy()).max()
        # Interpolated in ln(alpha), not ln(sigma): up to 0.1 between times 0 and 1; else float32.
        assert off < (0.1 if switch else 1e-4)


def test_log_linear_of_euler() -> None:
    grid, peer = compare("EulerDiscreteScheduler", 10, **SD, interpolation_type="log_linear")
    assert np.allclose(grid.rho[:-1], levels(peer)[:10], rtol=1e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_ddim_times(name: str, spacing: dict) -> None:
    for n in COUNTS:
        grid, peer = compare(name, n, **SD, **spacing)
        assert np.array_equal(grid.time[:-1], peer.timesteps.double().numpy())


def test_end_of_ddim() -> None:
    for whole in (True, False):
        grid, _ = compare("DDIMScheduler", 10, set_alpha_to_one=whole, steps_offset=1)
        assert grid.rho[-1] == (0 if whole else grid.process.rho_min)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize("name", [DPM, "UniPCMultistepScheduler", "EulerDiscreteScheduler"])
def test_zero_snr_starts_without_signal(name: str, spacing: str) -> None:
    for switch in (None, "use_karras_sigmas"):
        more = {switch: True} if switch else {}
        grid, peer = compare(
            name, 9, **SD, timestep_spacing=spacing, rescale_betas_zero_snr=True, **more
        )
        assert grid.alpha[0] == 0
        assert grid.time[0] == 999
        assert np.allclose(grid.rho[1:], levels(peer)[1:], rtol=1e-5)


@pytest.mark.parametrize("bound", [-5.1, -2.0])
def test_lambda_min_clipped(bound: float) -> None:
    for spacing in ("linspace", "leading"):
        grid, peer = compare(
            DPM, 12, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=bound,
            timestep_spacing=spacing,
        )  # fmt: skip
        assert np.array_equal(grid.time[:-1], peer.timesteps.double().numpy())
        assert grid.time[0] < 998


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", [DPM, UNIPC, "FlowMatchEulerDiscreteScheduler"])
def test_flow_grids(name: str, shift: float) -> None:
    if name == UNIPC and not COUNTS_FROM_ONE:
        pytest.skip("the grid is that of newer versions")
    own = name in FLOW_CLASSES
    more = {"shift": shift} if own else {"use_flow_sigmas": True, "flow_shift": shift}
    for n in COUNTS:
        grid, peer = compare(name, n, **more)
        # UniPC subtracts 1e-6 from a first level of 1; in sigma, float32.
        assert np.allclose(grid.sigma, peer.sigmas.double().numpy(), rtol=1e-5, atol=1.1e-6)
        late = grid.time[:-1] - peer.timesteps.double().numpy()
        assert -1e-3 <= late.min() <= late.max() <= (1e-3 if own else 1.001)  # cut to integers


@pytest.mark.parametrize("switch", SWITCHES[:3])
@pytest.mark.parametrize("terminal", [None, 0.1])
def test_flow_match_switches(switch: str, terminal: float | None) -> None:
    for n in COUNTS[1:]:
        grid, peer = compare(
            FLOW_CLASSES[0], n, shift=3.0, shift_terminal=terminal, **{switch: True}
        )
        assert np.allclose(grid.sigma, peer.sigmas.double().numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_dynamic_shifting(kind: str) -> None:
    more = {"use_dynamic_shifting": True, "time_shift_type": kind}
    grid, peer = compare(FLOW_CLASSES[0], 8, mu=0.9, **more)
    assert np.allclose(grid.sigma, peer.sigmas.double().numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="needs mu"):
        diffusers_grid(grid.process, config_of(peer), 8)
    grid, peer = compare(DPM, 8, mu=0.9, use_flow_sigmas=True, use_dynamic_shifting=True)
    assert np.allclose(grid.sigma, peer.sigmas.double().numpy(), rtol=1e-5)


def test_sigma_switches_of_a_flow() -> None:
    # The DPM family takes sigma from the table of betas, though sigma of a flow ends at 1.
    grid, peer = compare(DPM, 8, use_flow_sigmas=True, use_karras_sigmas=True)
    assert peer.sigmas.max() > 150
    assert grid.sigma.max() <= 1
    plain, _ = compare(DPM, 8, use_flow_sigmas=True)
    assert np.allclose(grid.sigma[[0, 7]], plain.sigma[[0, 7]])
    assert np.allclose(np.diff(grid.sigma[:-1] ** (1 / 7), 2), 0)
    # A single call at sigma = 1 is not stretched to a terminal level (0 / 0 in diffusers).
    config = config_of(build(FLOW_CLASSES[0], shift_terminal=0.1))
    assert list(diffusers_grid(Flow(), config, 1).sigma) == [1, 0]


@pytest.mark.skipif(not COUNTS_FROM_ONE, reason="the grid is that of newer versions")
def test_karras_levels_of_unipc_are_mapped_back() -> None:
    grid, peer = compare(UNIPC, 8, use_flow_sigmas=True, use_karras_sigmas=True)
    assert np.allclose(grid.sigma, peer.sigmas.double().numpy(), rtol=1e-4)  # its table is float32


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_edm_grids(name: str, schedule: str) -> None:
    for n in COUNTS[1:]:  # their single exponential level is sigma_min
        grid, peer = compare(name, n, sigma_schedule=schedule, rho=5.0)
        assert np.allclose(grid.rho, levels(peer), rtol=1e-5)
        assert np.allclose(grid.time[:-1], peer.timesteps.double().numpy(), atol=1e-5)


def test_score_sde_grids() -> None:
    peer = build("ScoreSdeVeScheduler")
    peer.set_timesteps(30)
    peer.set_sigmas(30)
    grid = diffusers_grid(from_diffusers_config(config_of(peer)), config_of(peer), 30)
    assert np.allclose(grid.rho[:-1], peer.sigmas.double().numpy(), rtol=1e-5)
    peer = build("ScoreSdeVpScheduler")
    peer.set_timesteps(30)
    grid = diffusers_grid(from_diffusers_config(config_of(peer)), config_of(peer), 30)
    assert np.allclose(grid.time[:-1], peer.timesteps.double().numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["DEISMultistepScheduler", "SASolverScheduler"])
def test_dead_last_steps_end_at_zero(name: str) -> None:
    grid, peer = compare(name, 8, **SD)
    assert np.allclose(grid.rho, levels(peer), rtol=1e-5)  # linspace ends at the least level
    grid, peer = compare(name, 8, **SD, use_karras_sigmas=True)
    assert peer.sigmas[-1] == peer.sigmas[-2]
    assert np.allclose(grid.rho[:-1], levels(peer)[:-1], rtol=1e-5)
    assert grid.rho[-1] == 0


def test_more_calls_than_whole_times() -> None:
    config = {**SD, "num_train_timesteps": 20, "timestep_spacing": "trailing"}
    with pytest.raises(ValueError, match="use fewer calls"):
        diffusers_grid(from_diffusers_config(config), config, 21)
    with pytest.raises(ValueError, match="at least 1 call"):
        diffusers_grid(from_diffusers_config(config), config, 0)
