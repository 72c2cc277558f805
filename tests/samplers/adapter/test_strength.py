"""``strength`` of image-to-image is a noise level, whatever the class and the number of calls."""

import functools
import math
import warnings

import diffusers
import numpy as np
import pytest
import torch
from helpers import scheduler_classes

import fewstep
from fewstep.eval.problems import load_problem
from fewstep.models.exact import MixtureDenoiser
from fewstep.types import Level

CLASSES = scheduler_classes()
LATENT = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PEERS = {
    "vp": lambda: diffusers.EulerDiscreteScheduler(**LATENT),
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}
# They sample the posterior of the image, of which the exact share is known; an ODE keeps more.
NOISY = ("EulerAncestral", "SASolver")
SAMPLES = 600
STRENGTHS, COUNTS = (0.3, 0.6, 0.9), (5, 10, 20, 50)


@functools.cache
def mix8(kind: str) -> MixtureDenoiser:
    return load_problem({"vp": "mix8", "flow": "mix8-flow"}[kind]).denoiser


def level_at(denoiser: MixtureDenoiser, time: float) -> Level:
    alpha, sigma = map(float, denoiser.process.alpha_sigma(time))
    return Level(time, alpha, sigma, 0, 0.0, 1.0, 0, None)


@functools.cache
def images(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    data = mix8(kind).sample_data(SAMPLES, torch.Generator().manual_seed(1))
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(2), dtype=data.dtype)
    return data, noise


def mode(kind: str, x: torch.Tensor) -> torch.Tensor:
    means = mix8(kind).means
    return torch.cdist(x, means).argmin(1)


def slices(scheduler, kind: str, n: int, strength: float) -> torch.Tensor:
    """As pipelines do: flows send the levels of n calls, and the slice comes first."""
    if kind == "flow":
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / n, n))
    else:
        scheduler.set_timesteps(n)
    start = n - int(n * strength)
    times = scheduler.timesteps[start:]
    scheduler.set_begin_index(start)
    return times


def from_image(scheduler, kind: str, n: int, strength: float) -> tuple[torch.Tensor, float]:
    """What becomes of the images, and the time of the first call."""
    (data, noise), denoiser = images(kind), mix8(kind)
    times = slices(scheduler, kind, n, strength)
    add = scheduler.scale_noise if kind == "flow" else scheduler.add_noise
    told = times[:1].repeat(len(data))
    x = add(data, told, noise) if kind == "flow" else add(data, noise, told)
    first, ours = float(times[0]), hasattr(scheduler, "plan")
    kwargs = {"generator": torch.Generator().manual_seed(3)} if ours else {}
    for t in times:
        seen = scheduler.scale_model_input(x, t) if kind == "vp" else x
        level = level_at(denoiser, float(t))
        x0 = denoiser(seen, level)
        output = (seen - (x0 if kind == "flow" else level.alpha * x0)) / level.sigma
        x = scheduler.step(output, t, x, **kwargs).prev_sample
    return x, first


@functools.cache
def of_diffusers(kind: str, n: int, strength: float) -> tuple[float, float]:
    """The share of images that stay in their mode, and the first time."""
    x, first = from_image(PEERS[kind](), kind, n, strength)
    return float((mode(kind, x) == mode(kind, images(kind)[0])).double().mean()), first


def allowed(share: float) -> float:
    """Three standard errors of the difference of two shares."""
    return 3 * math.sqrt(2 * max(share * (1 - share), 1 / SAMPLES) / SAMPLES)


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.filterwarnings("ignore:.*climbs back in noise")
def test_as_many_images_stay_in_their_mode_as_with_diffusers_euler(cls, kind: str) -> None:
    start = mode(kind, images(kind)[0])
    for strength in STRENGTHS:
        for n in COUNTS:
            if cls.__name__ in NOISY and n < 50:
                continue
            x, first = from_image(cls.from_config(PEERS[kind]().config), kind, n, strength)
            share, expected = of_diffusers(kind, n, strength)
            assert first == pytest.approx(expected, abs=1e-2)  # its times are float32
            if cls.__name__ in NOISY:
                share = posterior_share(kind, expected)
            kept = float((mode(kind, x) == start).double().mean())
            assert abs(kept - share) <= allowed(share), (strength, n)


def posterior_share(kind: str, time: float) -> float:
    """E p(mode of the image | noisy image), by Bayes' rule."""
    (data, noise), denoiser = images(kind), mix8(kind)
    level = level_at(denoiser, time)
    x = level.alpha * data + level.sigma * noise
    variance = (level.alpha * denoiser.stds) ** 2 + level.sigma**2
    squares = torch.cdist(x, level.alpha * denoiser.means) ** 2
    width = data.shape[1]
    log_p = denoiser.log_weights - squares / (2 * variance) - width / 2 * variance.log()
    return float(log_p.softmax(1).gather(1, mode(kind, data)[:, None]).mean())


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.filterwarnings("ignore:.*climbs back in noise")
def test_stable_diffusion_starts_where_diffusers_starts(cls) -> None:
    data = torch.zeros(2, 4, 2, 2)
    for n, expected in ((10, 222), (20, 263), (50, 285)):
        scheduler = cls.from_config(PEERS["vp"]().config)
        times = slices(scheduler, "vp", n, 0.3)
        before = times[:1].repeat(2)
        x = scheduler.add_noise(data, torch.ones_like(data), before)
        assert float(times[0]) == pytest.approx(expected, abs=0.5)
        assert torch.equal(scheduler.timesteps[-len(times) :], times)
        sigma = scheduler.process.alpha_sigma(float(times[0]))[1]
        torch.testing.assert_close(x, torch.full_like(x, float(sigma)))
        # Whoever read the time before it moved gets the same noise.
        assert torch.equal(x, scheduler.add_noise(data, torch.ones_like(data), before))
        assert torch.equal(x, scheduler.add_noise(data, torch.ones_like(data), times[:1]))
        levels = scheduler.sigmas[-len(times) - 1 :]
        assert torch.all(levels[1:] <= levels[:-1])
        rho = scheduler.process.rho(times.numpy())
        np.testing.assert_allclose(levels[:-1], rho, rtol=1e-4)  # times are float32
        assert scheduler.facts(n - len(times)).levels[0].time == pytest.approx(float(times[0]))


def test_pipelines_that_do_not_call_set_begin_index() -> None:
    """Kandinsky and video to video: the entry is told by the time that noise is added at."""
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(3, 4)
    scheduler.set_timesteps(10)
    times = scheduler.timesteps[7:]
    scheduler.add_noise(x, x, times[:1].repeat(3))
    assert times[0] == 222
    for t in times:
        x = scheduler.step(x, t, x, return_dict=False)[0]
    assert scheduler.step_index == 10


@pytest.mark.parametrize("n", [10, 13])
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.filterwarnings("ignore:.*climbs back in noise", "ignore:.*second call of a step")
def test_the_time_of_every_entry_names_it(cls, n: int) -> None:
    """Where no begin index is said, also for solvers that call at a time twice."""
    peer = PEERS["vp"]()
    peer.set_timesteps(n)
    for entry in range(1, n):
        scheduler, x = cls.from_config(peer.config), torch.ones(1, 4)
        scheduler.set_timesteps(n)
        times = scheduler.timesteps[entry:]
        scheduler.add_noise(x, x, times[:1].repeat(1))
        assert float(times[0]) == pytest.approx(float(peer.timesteps[entry]), abs=1e-2)
        for t in times:
            x = scheduler.step(torch.tanh(x), t, x, return_dict=False)[0]
        assert scheduler.step_index == n


def test_the_modes_of_autograd_do_not_matter() -> None:
    x = torch.ones(2, 4)
    for first, second in ((True, False), (False, True), (True, True)):
        scheduler = fewstep.UniPC.from_config(PEERS["vp"]().config)
        with torch.inference_mode(first):
            scheduler.set_timesteps(10)
        with torch.inference_mode(second):
            scheduler.set_begin_index(7)
            scheduler.add_noise(x, x, scheduler.timesteps[7:8].repeat(2))
        assert scheduler.timesteps[7] == 222


@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize(
    "read",
    [
        torch.Tensor.long,
        torch.Tensor.half,
        torch.Tensor.bfloat16,
        torch.Tensor.clone,
        torch.Tensor.double,
        torch.Tensor.tolist,
        lambda t: [int(v) for v in t],
        lambda t: t.long().numpy(),
    ],
)
def test_times_that_were_read_before_the_start_moved_are_refused(read, begin: bool) -> None:
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    before = read(scheduler.timesteps)
    if begin:
        scheduler.set_begin_index(4)
    scheduler.add_noise(x, x, scheduler.timesteps[4:5].repeat(2))
    with pytest.raises(ValueError, match="read timesteps after"):
        scheduler.step(x, before[4], x)
    for t in read(scheduler.timesteps)[4:]:
        x = scheduler.step(x, t, x).prev_sample
    assert scheduler.step_index == 10


@pytest.mark.parametrize(
    "cast",
    [torch.Tensor.long, torch.Tensor.half, torch.Tensor.bfloat16, lambda t: t.round().long()],
)
def test_a_begin_index_counts_whatever_dtype_its_time_has(cast) -> None:
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(7)
    scheduler.add_noise(x, x, cast(scheduler.timesteps[7:8].repeat(2)))
    assert scheduler.timesteps[7] == 222


def test_a_run_that_has_its_start_cannot_begin_elsewhere() -> None:
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(5)
    scheduler.add_noise(x, x, scheduler.timesteps[5:6].repeat(2))
    scheduler.set_begin_index(5)
    for entry in (0, 4, 6):
        with pytest.raises(ValueError, match="starts at entry 5: call set_timesteps"):
            scheduler.set_begin_index(entry)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(0)


def test_a_look_at_the_noise_moves_nothing() -> None:
    """Views of entries, first entries, other times, and times by sample are no start."""
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.clone()
    whole = scheduler.timesteps[4:5].long().repeat(2)  # of a training loop, by chance near an entry
    for times in (*scheduler.timesteps, torch.tensor([500, 500]), scheduler.timesteps[:1].repeat(2),
                  scheduler.timesteps[3:5].clone(), whole):  # fmt: skip
        scheduler.add_noise(x, x, times)
    assert torch.equal(scheduler.timesteps, before)
    assert scheduler.begin_index is None
    scheduler.set_begin_index(4)
    scheduler.add_noise(x, x, torch.tensor([981]))
    assert torch.equal(scheduler.timesteps, before)


@pytest.mark.parametrize("options", [{"grid": "karras"}, {"grid": "softlog"}, {"grid": "diffusers"},
                                     {"use_karras_sigmas": True}])  # fmt: skip
def test_a_grid_that_was_named_is_walked_as_it_is(options: dict) -> None:
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config, **options), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.clone()
    scheduler.set_begin_index(7)
    noised = scheduler.add_noise(0 * x, x, scheduler.timesteps[7:8].repeat(2))
    assert torch.equal(scheduler.timesteps, before)
    row = scheduler.plan.evaluations[7]
    torch.testing.assert_close(noised, row.sigma * x)


def test_levels_that_were_passed_stay() -> None:
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(timesteps=[900, 500, 300, 100])
    scheduler.set_begin_index(2)
    scheduler.add_noise(x, x, scheduler.timesteps[2:3].repeat(2))
    assert scheduler.timesteps.tolist() == [900, 500, 300, 100]


def test_a_sample_that_is_there_goes_on_at_its_level() -> None:
    """The refiner of SDXL: it starts where its base stopped, and adds no noise."""
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    before = scheduler.timesteps.clone()
    scheduler.set_begin_index(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for t in scheduler.timesteps[6:]:
            x = scheduler.step(x, t, x, return_dict=False)[0]
    assert torch.equal(scheduler.timesteps, before)


def test_a_start_that_the_scheduler_is_not_told_of_is_said() -> None:
    """Kandinsky 2.1 makes the noise itself, at a share of the training times."""
    scheduler, x = fewstep.UniPC.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.set_timesteps(10)
    with pytest.warns(UserWarning, match=r"starts at entry 7 of 10 .* grid='diffusers'"):
        scheduler.step(x, scheduler.timesteps[7], x)


@pytest.mark.parametrize("name", ["Restart", "EDMStochastic"])
def test_climbs_that_would_undo_the_image_are_left_out_aloud(name: str) -> None:
    cls, x = getattr(fewstep, name), torch.ones(2, 4)
    scheduler = cls.from_config(PEERS["vp"]().config)
    scheduler.set_timesteps(40)
    assert scheduler.plan.draws
    scheduler.set_begin_index(20)
    with pytest.warns(UserWarning, match="climbs back in noise, .* it does not here"):
        scheduler.add_noise(x, x, scheduler.timesteps[20:21].repeat(2))
    assert not scheduler.plan.draws
    scheduler = cls.from_config(PEERS["vp"]().config, grid="karras")
    scheduler.set_timesteps(40)
    scheduler.set_begin_index(20)
    scheduler.add_noise(x, x, scheduler.timesteps[20:21].repeat(2))
    with pytest.warns(UserWarning, match="climbs back in noise, .* leave the grid automatic"):
        scheduler.step(x, scheduler.timesteps[20], x)


def test_nodes_of_guidance_are_below_the_start_too() -> None:
    scheduler, x = fewstep.DPMSolverPP.from_config(PEERS["vp"]().config), torch.ones(2, 4)
    scheduler.breakpoints = (0.3, 6.0)
    scheduler.set_timesteps(12)
    scheduler.set_begin_index(6)
    scheduler.add_noise(x, x, scheduler.timesteps[6:7].repeat(2))
    assert float(scheduler.sigmas[6]) < 6
    assert any(math.isclose(rho, 0.3) for rho in scheduler.grid.rho)
    assert scheduler.grid.breaks
    scheduler.set_timesteps(12)
    scheduler.set_begin_index(11)  # a single call has no node to move
    scheduler.breakpoints = (0.01,)
    with pytest.warns(UserWarning, match="what is left of the run is unsnapped") as caught:
        scheduler.add_noise(x, x, scheduler.timesteps[11:].repeat(2))
    assert len(caught) == 1
