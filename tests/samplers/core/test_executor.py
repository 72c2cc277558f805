"""What the executor promises: memory, precision, edits, gradients, no synchronisation."""

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from helpers import Mixture1D, run_plan
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.samplers import SAMPLERS, build_plan
from fewstep.samplers.adapter import schedulers as S
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.program import plan_tensors, plan_values
from fewstep.samplers.core.run import levels
from fewstep.samplers.sampling.loop import sample
from fewstep.schedules import discrete_vp
from fewstep.schedules.prediction import Prediction
from fewstep.types import Level

PROCESS = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
CLASSES = [getattr(S, entry.scheduler) for entry in SAMPLERS.values()]
SYNCING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}


class Watch(TorchDispatchMode):
    """Counts operations that read from the device, and fresh memory."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs, self.fresh = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = {t.untyped_storage().data_ptr() for t in (*args, *kwargs.values())
                 if isinstance(t, torch.Tensor)}  # fmt: skip
        result = func(*args, **kwargs)
        self.syncs += func._schema.name in SYNCING
        if isinstance(result, torch.Tensor) and result.numel() > 1:
            self.fresh += result.untyped_storage().data_ptr() not in known
        return result


def smooth_model(x: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
    """A noise prediction, smooth in x, that is what it claims near Gaussian data."""
    return 0.8 * x + 0.1 * torch.sin(x)


def gaussian_model(x: torch.Tensor, t: torch.Tensor | float) -> torch.Tensor:
    """The exact noise prediction for data N(0.1, 0.5^2) under diffusers' default betas."""
    alpha, sigma = (float(c) for c in discrete_vp().alpha_sigma(float(t)))
    return sigma * (x - alpha * 0.1) / (alpha**2 * 0.25 + sigma**2)


def run_scheduler(scheduler, x: torch.Tensor, n: int = 20, model=smooth_model, **kwargs):
    scheduler.set_timesteps(n)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x, return_dict=False, **kwargs)[0]
    return x


VARIANTS = [
    (S.SASolver, {"mode": "more_steps", "evaluate": "pece"}), (S.SASolver, {"tau": 0.0}),
    (S.DPMSolverPPSinglestep, {"tau": 1.0}), (S.DEISRungeKutta, {"order": 4}),
    (S.Restart, {"intervals": [[3, 2, 0.3, 1.0]]}),
    (S.Restart, {"intervals": [[3, 1, 0.3, 1.0]], "solver": "sa"}),
    (S.PlanScheduler, {"plans": [build_plan("unipc", discrete_vp(), 12)]}),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "options"), [*((cls, {}) for cls in CLASSES), *VARIANTS])
def test_a_step_reads_nothing_and_allocates_one_tensor(cls, options: dict) -> None:
    scheduler = cls(**options)
    scheduler.set_timesteps(12)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        output = smooth_model(x, t)
        noises = sum(bool(op.nu) for op in scheduler.plan.evaluations[i].ops)
        with torch.no_grad(), Watch() as watch:
            x = scheduler.step(output, t, x, generator=generator, return_dict=False)[0]
        assert watch.syncs == 0
        # The first steps also make the buffers that later ones use again.
        assert i < 5 or watch.fresh <= 1 + noises


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_handed_in_or_out_is_written(cls) -> None:
    scheduler = cls()
    scheduler.set_timesteps(9)
    x = torch.randn(2, 3, 4, 4) * scheduler.init_noise_sigma
    kept = []
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = smooth_model(x, t)
            kept += [(x, x.clone()), (output, output.clone())]
            x = scheduler.step(output, t, x, generator=torch.Generator().manual_seed(1))[0]
    assert all(torch.equal(a, b) for a, b in kept)


@pytest.mark.parametrize("spec", ["dpmpp:order=3", "unipc", "deis", "heun", "ddim", "ipndm"])
def test_push_driver_equals_pull_driver_bit_for_bit(spec: str) -> None:
    class Denoiser:
        process = PROCESS

        def __call__(self, x, level: Level, cond=None):
            return torch.tanh(x)

    noise = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pulled = sample(Denoiser(), spec, 9, noise=noise)
        name, _, _ = spec.partition(":")
        options = {"order": 3} if spec.endswith("3") else {}
        scheduler = getattr(S, SAMPLERS[name].scheduler)(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            prediction_type="sample", **options,
        )  # fmt: skip
        pushed = run_scheduler(scheduler, noise, 9, lambda x, t: torch.tanh(x))
    assert torch.equal(pulled, pushed)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spec", ["unipc", "unipc:order=1", "heun", "edm:churn=0", "dpmpp"])
def test_an_edited_sample_is_not_erased_by_a_corrector(spec: str, dtype, in_place: bool) -> None:
    """On a point mass the flow is affine: an edit d of x must arrive as (sigma_T / sigma_t) d."""
    joint = "," if ":" in spec else ":"
    plan = build_plan(f"{spec}{joint}grid=linspace,final=sigma_min", PROCESS, 8)
    executor, x, c = Executor(plan), torch.linspace(-1, 1, 7, dtype=dtype), 0.4
    change = torch.linspace(0.1, 0.3, 7, dtype=dtype)
    with torch.no_grad():
        for e, row in enumerate(plan.evaluations):
            if e == 4:
                expected = plan.end[0] * c + plan.end[1] / row.sigma * (x + change - row.alpha * c)
                x = x.add_(change) if in_place else x + change
            x = executor.step(e, torch.full_like(x, c), x, torch.zeros_like)
    torch.testing.assert_close(
        x, expected, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-6
    )


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_costs_the_rounding_of_the_outputs_only(cls, dtype) -> None:
    """Replaying recorded half-precision outputs in float64 gives the same final state.

    Latent models' betas: with the noise predictions held fixed a rounding error grows by
    alpha_end / alpha_start, 15 here and 158 with linear betas, times 6e-8.
    """
    scheduler = cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.set_timesteps(20)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    replay = Executor(scheduler.plan, Prediction("epsilon"))
    y, generator = x.double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for e, t in enumerate(scheduler.timesteps):
            output = smooth_model(x, t)
            noise = torch.randn(x.shape, generator=generator)
            if e == 19:  # the last step rounds to the output's type: take its state instead
                state = scheduler._executor.step(
                    e, output.float(), x, lambda like, noise=noise: noise
                )
            else:
                x = scheduler.step(output, t, x, variance_noise=noise, return_dict=False)[0]
                assert x.dtype == dtype
            y = replay.step(e, output.double(), y, lambda like, noise=noise: noise.double())
    assert (state.double() - y).norm() / y.norm() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["DDIM", "DPMSolverPP", "UniPC"])
def test_closed_loop_half_precision(name: str, dtype) -> None:
    """Against diffusers with the same grid, the network rounding what it is handed and returns.

    That rounding is most of our error, and no scheduler can mend it: a float64 state does no
    better. diffusers adds the rounding of the state at each step.
    """
    ours, peer = {
        "DDIM": (
            S.DDIM(grid="trailing"),
            DDIMScheduler(timestep_spacing="trailing", clip_sample=False),
        ),
        "DPMSolverPP": (S.DPMSolverPP(grid="linspace"), DPMSolverMultistepScheduler()),
        "UniPC": (S.UniPC(grid="linspace"), UniPCMultistepScheduler()),
    }[name]
    start = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def rounding(x, t):
        return gaussian_model(x.float(), t).to(dtype)

    def error(scheduler) -> float:
        exact = run_scheduler(scheduler, start.double(), model=gaussian_model)
        half = run_scheduler(scheduler, start.to(dtype), model=rounding)
        return ((half.double() - exact).norm() / exact.norm()).item()

    def in_float64() -> float:
        ours.set_timesteps(20)
        executor, x = Executor(ours.plan, Prediction("epsilon")), start.to(dtype).double()
        for e, t in enumerate(ours.timesteps):
            x = executor.step(e, rounding(x.to(dtype), t).double(), x, torch.zeros_like)
        exact = run_scheduler(ours, start.double(), model=gaussian_model)
        return ((x.to(dtype).double() - exact).norm() / exact.norm()).item()

    with torch.no_grad():
        assert error(ours) < 0.5 * error(peer)
        assert error(ours) < 1.1 * in_float64()


@pytest.mark.parametrize("spec", ["dpmpp:order=3", "unipc", "deis", "heun", "ddim:eta=0.5"])
def test_gradient_by_the_table_is_that_of_finite_differences(spec: str, mixture: Mixture1D) -> None:
    plan = build_plan(f"{spec}{',' if ':' in spec else ':'}grid=linspace", PROCESS, 5)
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)

    def final(values: torch.Tensor) -> torch.Tensor:
        rows = plan_tensors(plan, values)
        executor, x = Executor(plan, rows=rows), start
        for e, row in enumerate(rows):
            x = executor.step(e, mixture(x, row.alpha, row.sigma), x, torch.ones_like)
        return x.square().sum()

    values = torch.tensor(plan_values(plan), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        run_plan(plan, mixture, start, torch.ones_like).square().sum(), final(values).detach(),
        rtol=1e-10, atol=0,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(final(values), values)
    for i in range(len(values)):
        step = torch.zeros_like(values)
        step[i] = 1e-6
        with torch.no_grad():
            slope = (final(values + step) - final(values - step)) / 2e-6
        # Entries that are zero in the plan are structure, not numbers: they carry no gradient.
        assert gradient[i] == 0 or abs(slope - gradient[i]) < 1e-5 * (1 + abs(slope))
    assert (gradient != 0).sum() >= 2 * plan.nfe


def test_gradients_flow_through_a_trajectory() -> None:
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for cls in (S.DPMSolverPP, S.UniPC, S.DEIS, S.Heun):
        assert torch.autograd.gradcheck(lambda y, cls=cls: run_scheduler(cls(), y, 6), x)


def test_levels_name_every_evaluation() -> None:
    plan = build_plan("heun", PROCESS, 6)
    seen = levels(plan)
    assert [level.index for level in seen] == list(range(6))
    assert seen[-1].next_sigma == 0
