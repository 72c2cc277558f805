"""Stored plans behind the interface of diffusers, with starts from a Gaussian and without."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from gaussians import randn
from helpers import CONFIGS
from tiny_pipelines import FLOW, SMALL, ddpm, img2img, sd3, stable_diffusion, with_scheduler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from watch import Watch

from fewstep.guidance import parse_guidance
from fewstep.models import DiffusersDenoiser
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.adapter.files import save_tuned
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.samplers.gaussian.warm import WarmTeleport, warm_plan
from fewstep.samplers.tuning.flatten import flatten
from fewstep.schedules import NoiseProcess
from fewstep.schedules.prediction import Prediction
from fewstep.types import Level

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
LANDING, CALLS, SHAPE = 3.0, 4, (2, 3, 3)
KINDS = [
    ("vp-scaled", "epsilon"), ("vp-scaled", "sample"), ("vp-cosine", "v_prediction"),
    ("vp-zero-snr", "v_prediction"), ("flow", "flow_prediction"), ("edm", "epsilon"),
]  # fmt: skip
# Of the data form, of the noise form, and tuned ones, which are flat; None starts as usual.
STARTS = [(spec, h) for spec in ("dpmpp:order=3", "ipndm") for h in (None, 0, 2)] + [("tuned", 2)]
SYNCING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal",
    "aten::_unique2", "aten::masked_select",
}  # fmt: skip


def plan_from(process: NoiseProcess, spec: str, history: int | None, n: int = CALLS) -> Plan:
    if history is None:
        return build_plan(spec, process, n)
    if spec == "tuned":
        return flatten(warm_plan("dpmpp:order=3", process, n, LANDING, history), process).plan()
    return warm_plan(spec, process, n, LANDING, history)


def fit_of(*shape: int, low: float = 0.3) -> GaussianFit:
    """Independent elements with standard deviations up to 1.2, about means from -1 to 1."""
    size = torch.Size(shape).numel()
    stds = torch.linspace(low, 1.2, size, dtype=torch.float64)
    none = torch.zeros(size, 0, dtype=torch.float64)
    mean = torch.linspace(-1, 1, size, dtype=torch.float64).view(shape)
    return GaussianFit(shape, mean, (stds**2).view(shape), none, none[0])


def loaded(config: str, kind: str, plans: list[Plan], fit: Any = None) -> Any:
    settings = {**CONFIGS[config], "prediction_type": kind}
    scheduler = schedulers.PlanScheduler(**settings, plans=plans)
    scheduler.gaussian = fit
    return scheduler


def smooth(x: Tensor, level: Level, cond: Any = None) -> Tensor:
    """A data prediction."""
    return torch.tanh(x / (level.alpha + level.sigma) + 0.1 * level.alpha)


class Smooth:
    """The same as a denoiser, which counts and notes where it is called."""

    def __init__(self, process: NoiseProcess) -> None:
        self.process, self.rhos = process, list[float]()

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        self.rhos.append(level.rho)
        return smooth(x, level)


def pipeline(scheduler: Any, latents: Tensor, n: int = CALLS) -> Tensor:
    """The loop of a pipeline whose network predicts what the scheduler expects."""
    scheduler.set_timesteps(n)
    plan, x = scheduler.plan, latents * scheduler.init_noise_sigma
    kind, scale = scheduler.config.prediction_type, scheduler.config.get("sigma_data")
    for row, t in zip(plan.evaluations[plan.history :], scheduler.timesteps, strict=True):
        if scale is not None:
            seen, wanted = scheduler.scale_model_input(x, t), x / (row.sigma**2 + scale**2) ** 0.5
            torch.testing.assert_close(seen, wanted)
        p, q = Prediction(kind, scale).coefficients(row.alpha, row.sigma, "data")
        data = smooth(x, Level(row.time, row.alpha, row.sigma))
        x = scheduler.step((data - p * x) / q, t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize(("spec", "history"), STARTS)
@pytest.mark.parametrize(("config", "kind"), KINDS)
def test_samples_are_those_of_sample(
    config: str, kind: str, spec: str, history: int | None, tmp_path: Path
) -> None:
    """In float64 to 1e-10: only roundings differ, over sigma / alpha of 30 in epsilon."""
    process = loaded(config, kind, []).process
    plan = plan_from(process, spec, history)
    fit = None if history is None else fit_of(*SHAPE)
    save_tuned(tmp_path / "tuned", [plan], {**CONFIGS[config], "prediction_type": kind}, fit)
    scheduler = schedulers.PlanScheduler.from_pretrained(tmp_path / "tuned")
    noise, denoiser = randn(3, *SHAPE, seed=5), Smooth(process)
    expected = sample(denoiser, str(tmp_path / "tuned"), CALLS, noise=noise)
    assert len(denoiser.rhos) == CALLS
    assert history is None or max(denoiser.rhos) == pytest.approx(LANDING)
    for one in (scheduler, scheduler.clone()):
        latents = noise if history is None else one.start(noise)
        torch.testing.assert_close(pipeline(one, latents), expected, rtol=0, atol=1e-10)
        assert len(one.timesteps) == one.num_inference_steps == CALLS
        assert [level.rho for level in one.facts().levels] == pytest.approx(denoiser.rhos)
    torch.testing.assert_close(sample(denoiser, scheduler, CALLS, noise=noise), expected)


class Rounded(DiffusersDenoiser):
    """Told the time in float32, as every scheduler's ``timesteps`` are."""

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        return super().__call__(x, replace(level, time=float(np.float32(level.time))), cond)


def conditions(pipe: Any, prompts: list[str]) -> tuple[dict, dict]:
    """The network's keyword arguments for the prompts, and without one."""
    if isinstance(pipe, diffusers.StableDiffusionPipeline):
        given, empty = pipe.encode_prompt(prompts, "cpu", 1, True)
        return {"encoder_hidden_states": given}, {"encoder_hidden_states": empty[:1]}
    given, empty, pooled, no = pipe.encode_prompt(
        prompts, prompts, prompts, max_sequence_length=FLOW["max_sequence_length"]
    )
    names = ("encoder_hidden_states", "pooled_projections")
    return dict(zip(names, (given, pooled), strict=True)), dict(
        zip(names, (empty[:1], no[:1]), strict=True)
    )


@pytest.mark.parametrize("history", [None, 0, 2])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("case", ["sd", "sd3"])
def test_through_pipelines(case: str, scale: float, history: int | None, tmp_path: Path) -> None:
    """A network that predicts noise and a flow, with guidance: the samples of ``sample`` to 1e-6.

    In float64, where 1e-13 was measured; in float32 roundings of these random networks, whose
    samples reach 40, are above 1e-6 of 1.
    """
    build, inputs = (stable_diffusion, SMALL) if case == "sd" else (sd3, FLOW)
    pipe, prompts = copy.deepcopy(build()).to(torch.float64), ["a b c", "d e"]
    network = pipe.unet if case == "sd" else pipe.transformer
    process = schedulers.PlanScheduler.from_config(pipe.scheduler.config).process
    plan = plan_from(process, "dpmpp:order=3", history)
    fit = None if history is None else fit_of(network.config.in_channels, 8, 8)
    save_tuned(tmp_path / "tuned", [plan], pipe.scheduler.config, fit)
    pipe.scheduler = schedulers.PlanScheduler.from_pretrained(tmp_path / "tuned")
    noise = randn(2, network.config.in_channels, 8, 8, seed=1)
    latents = noise if fit is None else pipe.scheduler.start(noise)
    with Watch(pipe) as seen:
        made = pipe(
            **{**inputs, "prompt": prompts}, latents=latents, num_inference_steps=CALLS,
            output_type="latent", guidance_scale=scale,
        ).images  # fmt: skip
    assert (seen.calls, seen.ticks, seen.total) == (CALLS, CALLS, CALLS)
    given, empty = conditions(pipe, prompts)
    kind = pipe.scheduler.config.prediction_type
    denoiser = Rounded(network, process, prediction_type=kind, uncond=empty)
    with torch.no_grad():
        own = sample(
            denoiser, str(tmp_path / "tuned"), CALLS, noise=noise, cond=given,
            guidance=parse_guidance(f"cfg:{scale}"),
        )  # fmt: skip
    assert made.dtype == torch.float64
    assert own.std() > 0.1
    torch.testing.assert_close(made, own, rtol=0, atol=1e-6)


def test_a_saved_pipeline_keeps_the_start(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    process = schedulers.PlanScheduler.from_config(pipe.scheduler.config).process
    plan, fit = plan_from(process, "tuned", 2), fit_of(4, 8, 8)
    pipe.scheduler = schedulers.PlanScheduler.from_config(pipe.scheduler.config, plans=[plan])
    pipe.scheduler.gaussian = fit
    pipe.save_pretrained(tmp_path)
    assert (tmp_path / "scheduler" / "start.safetensors").is_file()
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    inner = schedulers.PlanScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    noise = randn(1, 4, 8, 8, seed=1)
    for scheduler in (again.scheduler, inner):
        # To rounding, as numbers from a file lie at other addresses.
        torch.testing.assert_close(scheduler.start(noise), pipe.scheduler.start(noise))


def test_a_run_without_a_start_is_refused(tmp_path: Path) -> None:
    """Each run asks for its own ``start()``; so does one after a run that was refused."""
    process = loaded("vp-scaled", "sample", []).process
    scheduler = loaded("vp-scaled", "sample", [plan_from(process, "tuned", 2)], fit_of(*SHAPE))
    noise = randn(2, *SHAPE, seed=1)
    wanted = "starts from latents = scheduler.start"
    for _ in range(2):
        with pytest.raises(ValueError, match=wanted) as raised:
            pipeline(scheduler, noise)
        assert "\n" not in str(raised.value)
    scheduler.set_timesteps(CALLS)
    for _ in range(2):  # and going on after the refusal is no way around it
        with pytest.raises(ValueError, match=wanted):
            scheduler.step(noise, scheduler.timesteps[0], noise)
    first = pipeline(scheduler, scheduler.start(noise))
    with pytest.raises(ValueError, match=wanted):
        pipeline(scheduler, noise)
    with pytest.raises(ValueError, match=wanted):  # of another batch
        pipeline(scheduler, scheduler.start(noise)[:1])
    assert torch.equal(pipeline(scheduler, scheduler.start(noise)), first)
    pipe = ddpm()  # whose pipeline takes no latents
    plan = plan_from(schedulers.DDIM.from_config(pipe.scheduler.config).process, "tuned", 0)
    pipe.scheduler = schedulers.PlanScheduler.from_config(pipe.scheduler.config, plans=[plan])
    with pytest.raises(ValueError, match=wanted):
        pipe(num_inference_steps=CALLS)


def test_starts_that_cannot_be_made_are_refused() -> None:
    process, noise = loaded("vp-scaled", "sample", []).process, randn(2, *SHAPE, seed=1)
    two = [plan_from(process, "tuned", 2, n) for n in (4, 5)]
    usual = [plan_from(process, "ipndm", None)]
    cases = {
        "starts from plain noise": loaded("vp-scaled", "sample", usual, fit_of(*SHAPE)),
        "which no config holds": loaded("vp-scaled", "sample", two[:1]),
        "plans of 4, 5 calls: call set_timesteps": loaded("vp-scaled", "sample", two, fit_of(1)),
        "plans of no calls": loaded("vp-scaled", "sample", []),
        "samples of shape": loaded("vp-scaled", "sample", two[:1], fit_of(7)),
    }
    for message, scheduler in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            scheduler.start(noise)
        assert "\n" not in str(raised.value)
    scheduler = loaded("vp-scaled", "sample", two, fit_of(*SHAPE))
    scheduler.set_timesteps(4)
    latents = scheduler.start(noise)
    with pytest.raises(ValueError, match="starts from latents"):
        pipeline(scheduler, latents, 5)
    scheduler.set_timesteps(5)
    assert pipeline(scheduler, scheduler.start(noise), 5).isfinite().all()
    mixed = loaded("vp-scaled", "sample", [*two[:1], plan_from(process, "ipndm", None, 5)])
    mixed.gaussian = fit_of(*SHAPE)
    mixed.set_timesteps(4)
    latents = mixed.start(noise)
    with pytest.raises(ValueError, match="was called for another plan"):
        pipeline(mixed, latents, 5)
    assert pipeline(mixed, noise, 5).isfinite().all()
    cut = schedulers.PlanScheduler(thresholding=True, plans=[plan_from(process, "ipndm", 2)])
    cut.gaussian = fit_of(*SHAPE)
    with pytest.raises(ValueError, match="set thresholding=False"):
        cut.start(noise)


def test_entering_in_the_middle_is_refused() -> None:
    process = schedulers.PlanScheduler.from_config(img2img().scheduler.config).process
    plan = plan_from(process, "tuned", 2)
    pipe, inputs = with_scheduler("img2img", schedulers.PlanScheduler, plans=[plan])
    for strength in (0.5, 1.0):  # all calls at 1, but not from a Gaussian's latents
        with pytest.raises(ValueError, match=r"cannot be entered later|starts from latents"):
            pipe(**inputs, strength=strength, num_inference_steps=CALLS)
    scheduler = loaded("vp-scaled", "sample", [plan], fit_of(*SHAPE))
    latents = scheduler.start(randn(2, *SHAPE, seed=1))
    scheduler.set_timesteps(CALLS)
    with pytest.raises(ValueError, match="cannot be entered later"):
        scheduler.step(latents, scheduler.timesteps[1], latents)
    with pytest.raises(ValueError, match="cannot be entered later"):
        scheduler.set_begin_index(1)


def test_starts_by_class() -> None:
    process = loaded("flow", "flow_prediction", []).process
    fits = ClassGaussians((fit_of(*SHAPE), fit_of(*SHAPE, low=0.9)))
    plan, labels = plan_from(process, "ipndm", 2), torch.tensor([1, 0, 1])
    scheduler = loaded("flow", "flow_prediction", [plan], fits)
    noise = randn(3, *SHAPE, seed=5)
    made = pipeline(scheduler, scheduler.start(noise, labels))
    own = sample(Smooth(process), scheduler, CALLS, noise=noise, cond=labels)
    torch.testing.assert_close(made, own, rtol=0, atol=1e-10)
    alone = loaded("flow", "flow_prediction", [plan], fits.fits[1])
    torch.testing.assert_close(made[::2], pipeline(alone, alone.start(noise[::2])))
    for call in (
        lambda: scheduler.start(noise),
        lambda: sample(Smooth(process), scheduler, CALLS, noise=noise),
    ):
        with pytest.raises(ValueError, match="whole numbers as labels"):
            call()


@pytest.mark.parametrize("spec", ["tuned", "ipndm"])
def test_half_precision(spec: str) -> None:
    """State and history are kept in float32: errors are those of the outputs' own rounding."""
    scheduler = loaded("vp-scaled", "epsilon", [])
    plan = plan_from(scheduler.process, spec, 2)
    scheduler = loaded("vp-scaled", "epsilon", [plan], fit_of(*SHAPE))
    noise = randn(16, *SHAPE, seed=5)
    exact = pipeline(scheduler, scheduler.start(noise))
    for dtype in (torch.float16, torch.bfloat16):
        made = pipeline(scheduler, scheduler.start(noise.to(dtype)))
        assert made.dtype == dtype
        # Half a unit in the last place of epsilon, of order 1, over sigma / alpha of 3 and less.
        assert (made.double() - exact).square().mean().sqrt() < 6 * torch.finfo(dtype).eps


class Reads(TorchDispatchMode):
    """Counts what would wait for a device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name in SYNCING
        return func(*args, **(kwargs or {}))


def test_no_step_reads_from_the_device() -> None:
    """By class too, where the Gaussian looks at the labels: that is done in ``start``."""
    process, labels = loaded("vp-scaled", "sample", []).process, torch.tensor([1, 0, 1])
    fits = ClassGaussians((fit_of(*SHAPE), fit_of(*SHAPE, low=0.9)))
    scheduler = loaded("vp-scaled", "sample", [plan_from(process, "tuned", 2)], fits)
    with Reads() as seen:
        latents = scheduler.start(randn(3, *SHAPE, seed=5), labels)
    assert seen.count > 0
    with Reads() as seen:
        pipeline(scheduler, latents)
    assert seen.count == 0


def test_a_hook_sees_the_run_of_the_network_alone() -> None:
    """Guidance, hooks and callbacks: the levels from the landing on, and only those."""
    process = loaded("vp-scaled", "sample", []).process
    plan, noted = plan_from(process, "tuned", 2), dict[str, list]()

    class Hook:
        start_rho = None

        def check(self, run):
            noted["facts"] = [level.rho for level in run.levels]

        def start(self, noise, x, level):
            noted["start"] = [level.rho]
            return x

        def after_step(self, x, x0, level, seeds):
            noted.setdefault("steps", []).append(level.rho)
            return torch.tensor([1, 1, 0]) if level.index == 0 else None

    hook = WarmTeleport(plan, process, fit_of(*SHAPE))
    denoiser, noise = Smooth(process), randn(3, *SHAPE, seed=5)
    calls: list[int] = []
    made = sample(
        denoiser, plan, CALLS, noise=noise, hooks=[Hook(), hook],
        callback=lambda i, x: calls.append(i),
    )  # fmt: skip
    rhos = plan.sigmas(native=False)[2:-1]
    assert noted["facts"] == noted["steps"] == denoiser.rhos == pytest.approx(rhos)
    assert noted["start"] == rhos[:1]
    assert calls == list(range(CALLS))
    whole = sample(denoiser, plan, CALLS, noise=noise, hooks=[hook])
    # What a sample remembers, its history from the Gaussian too, follows it.
    # To rounding: products with the axes of the Gaussian may differ by the row of a batch.
    torch.testing.assert_close(made[0], made[1])
    torch.testing.assert_close(made[1:], whole[[1, 0]])


def test_plans_of_other_models_and_n_they_lack() -> None:
    process = loaded("vp-scaled", "sample", []).process
    told = {"tuned": {"prediction_type": "epsilon"}}
    plan = plan_from(process, "tuned", 2)
    plan = replace(plan, provenance={**plan.provenance, **told})
    with pytest.raises(ValueError, match="was tuned for prediction_type 'epsilon', this"):
        loaded("vp-scaled", "sample", [plan]).set_timesteps(CALLS)
    scheduler = loaded("vp-scaled", "epsilon", [plan], fit_of(*SHAPE))
    for n in (CALLS + 2, 3):  # rows with the history, and none
        with pytest.raises(ValueError, match="holds plans of 4 calls"):
            scheduler.set_timesteps(n)
    scheduler.set_timesteps(CALLS)
    with pytest.raises(ValueError, match="another noise process"):
        loaded("vp-cosine", "epsilon", [plan]).set_timesteps(CALLS)
    assert len(repr(scheduler)) < 1500  # and not the tables
    assert "4 calls" in repr(scheduler)
