"""Inpainting: what is known stays, and no corrector takes back what was pasted in."""

from collections.abc import Callable

import diffusers
import numpy as np
import pytest
import torch
from helpers import scheduler_classes
from tiny_pipelines import RIGHT, inpaint, with_scheduler
from torch import Tensor
from watch import run

import fewstep
from fewstep.samplers.core.plan import Plan

CLASSES = scheduler_classes()
KNOWN = slice(0, 4)  # columns of the latents, of 8
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def known_region(scheduler: diffusers.SchedulerMixin, n: int) -> tuple[list[Tensor], Tensor]:
    """Latents after each step, and those of the image itself, which an empty mask gives back."""
    pipe = inpaint()
    pipe.scheduler = scheduler
    _, inputs = with_scheduler("inpaint", fewstep.DDIM)
    steps: list[Tensor] = []

    def keep(_, i: int, t: Tensor, state: dict) -> dict:
        steps.append(state["latents"].clone())
        return {}

    run(pipe, n, output_type="latent", callback_on_step_end=keep, **inputs)
    nothing = {**inputs, "mask_image": torch.zeros_like(RIGHT)}
    image = run(pipe, n, output_type="latent", **nothing)
    return steps, torch.from_numpy(image)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("n", [1, 6])
def test_the_known_region_is_kept_as_well_as_ddim_keeps_it(cls: type, n: int) -> None:
    """Exactly: the pipeline pastes the image itself in after the last step."""
    config = inpaint().scheduler.config
    peer, image = known_region(diffusers.DDIMScheduler.from_config(config), n)
    ours, same = known_region(cls.from_config(config), n)
    assert torch.equal(image, same)
    allowed = (peer[-1] - image)[..., KNOWN].abs().max()
    assert (ours[-1] - image)[..., KNOWN].abs().max() <= allowed
    assert (ours[-1] - image)[..., 4:].abs().max() > 0.1  # the rest was painted


@pytest.mark.parametrize("cls", CLASSES)
def test_the_network_sees_the_known_region_at_its_level_of_noise(cls: type) -> None:
    """After step i it is alpha x0 + sigma noise of the next call, with one noise for all steps."""
    scheduler = cls.from_config(inpaint().scheduler.config)
    steps, image = known_region(scheduler, 6)
    noises = []
    for row, latents in zip(scheduler.plan.evaluations[1:], steps, strict=False):
        noises.append((latents - row.alpha * image)[..., KNOWN] / row.sigma)
    for noise in noises:
        # The level is looked up by a float32 time; 1 / sigma of the last call is about 15.
        torch.testing.assert_close(noise, noises[0], rtol=0, atol=2e-3)
    assert 0.5 < noises[0].std() < 1.5


Network = Callable[[Tensor, float], Tensor]
Edit = Callable[[Tensor, int], Tensor]


def replay(plan: Plan, network: Network, x: Tensor, edit: Edit, draw: Callable) -> Tensor:
    """A plan with nothing but its definition; what is done to x is done to the base as well."""
    base, history = torch.zeros_like(x), list[Tensor]()
    for e, row in enumerate(plan.evaluations):
        data = (x - row.sigma * network(x, row.time)) / row.alpha
        output = data if row.form == "data" else (x - row.alpha * data) / row.sigma
        history = [output, *(history if row.store == "push" else history[1:])]
        for op in row.ops:
            made = op.c_x * x + op.c_b * base
            for weight, past in zip(op.w, history, strict=False):
                made = made + weight * past
            made = made + op.nu * draw(x) if op.nu else made
            if op.reg == "x":
                x = made
            elif op.reg == "base":
                base = made
            else:
                history[0] = made
        change = edit(x, e) - x
        x, base = x + change, base + change
    return x


def soft_paste(scheduler: fewstep.UniPC, n: int) -> Edit:
    """Blends the noised original in with weights between 0 and 1, as soft masks do."""
    generator = torch.Generator().manual_seed(4)
    image, noise, mask = torch.rand(3, 1, 4, 8, 8, generator=generator, dtype=torch.float64)

    def edit(x: Tensor, e: int) -> Tensor:
        known = image
        if e + 1 < n:
            known = scheduler.add_noise(image, noise, scheduler.timesteps[e + 1])
        return x + (1 - mask) * (known - x)

    return edit


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("n", [3, 9])
def test_a_pasted_state_is_the_state_that_the_solver_goes_on_from(cls: type, n: int) -> None:
    """A soft mask leaves a part of the sample under the paste, where a corrector could undo it."""
    scheduler = cls.from_config(inpaint().scheduler.config)
    scheduler.set_timesteps(n)
    edit = soft_paste(scheduler, n)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)).double()

    def network(x: Tensor, t: float) -> Tensor:
        return torch.tanh(x + float(t) / 1000)

    noise = torch.Generator().manual_seed(6)
    x = start
    with torch.no_grad():
        for e, t in enumerate(scheduler.timesteps):
            x = scheduler.step(network(x, t), t, x, generator=noise, return_dict=False)[0]
            x = edit(x, e)
    noise = torch.Generator().manual_seed(6)
    told = iter(scheduler.timesteps)  # equal times of a plan are told apart by a bit

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=noise, dtype=like.dtype)

    expected = replay(scheduler.plan, lambda y, t: network(y, next(told)), start, edit, draw)
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["UniPC", "SASolver", "Heun"])
def test_a_seam_is_where_the_edit_put_it(name: str) -> None:
    """On a point mass the flow is affine: a callback's edit d of the latents at sigma_k has become
    (sigma / sigma_k) d at any later call. A corrector that starts from the state before the edit
    would lose it (diffusers' UniPC does)."""
    if not hasattr(fewstep, name):
        pytest.skip(f"there is no {name}")
    options = {"tau": 0.0} if name == "SASolver" else {}
    cls = getattr(fewstep, name)
    ours = seam(cls.from_config(inpaint().scheduler.config, grid="linspace", **options))
    np.testing.assert_allclose(ours, 1, atol=1e-3)  # float32: d is a tenth of the sample
    if name == "UniPC":
        peer = seam(diffusers.UniPCMultistepScheduler.from_config(inpaint().scheduler.config))
        assert abs(peer - 1) > 0.3


def seam(scheduler: diffusers.SchedulerMixin) -> float:
    """How much of an edit on the right of the sample is left four calls later."""
    scheduler.set_timesteps(8)
    point, pictures = 0.4, []
    for size in (0.0, 0.1):
        x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(7))
        for i, t in enumerate(scheduler.timesteps[:6]):
            alpha, sigma = levels(scheduler, float(t))
            x = scheduler.step((x - alpha * point) / sigma, t, x, return_dict=False)[0]
            if i == 1:  # between two steps of Heun, too
                x = x + size * RIGHT[..., ::2, ::2]
        pictures.append(x)
        scheduler.set_timesteps(8)
    first, last = (levels(scheduler, float(scheduler.timesteps[i]))[1] for i in (2, 6))
    change = (pictures[1] - pictures[0])[..., 4:].mean()
    return float(change / (0.1 * last / first))


def levels(scheduler: diffusers.SchedulerMixin, t: float) -> tuple[float, float]:
    """(alpha, sigma) of a table time."""
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    time = torch.tensor([t])
    if isinstance(scheduler, diffusers.UniPCMultistepScheduler):
        product = float(scheduler.alphas_cumprod[int(t)])
        return product**0.5, (1 - product) ** 0.5
    alpha = scheduler.add_noise(one, zero, time)
    return float(alpha), float(scheduler.add_noise(zero, one, time))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_an_empty_mask_gives_the_image_back(cls: type, strength: float) -> None:
    pipe, inputs = with_scheduler("inpaint", cls)
    inputs = {**inputs, "mask_image": torch.zeros_like(RIGHT), "strength": strength}
    made = [run(pipe, n, output_type="latent", **inputs) for n in (3, 8)]
    np.testing.assert_array_equal(*made)
