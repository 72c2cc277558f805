"""What a jump costs: closed forms on Gaussian data, direct evaluation, observed orders."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from fewstep.eval.problems import load_problem
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers.tuning.dp import best_path, path_cost, rounded_path
from fewstep.samplers.tuning.jumps import gits_cost, teacher, teacher_cost
from fewstep.samplers.tuning.klub import klub_cost, prediction_distances
from fewstep.schedules import VE, Flow, discrete_vp, grid_from_rho, make_grid

EDM = VE(0.002, 80.0)
SD = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)


def gaussian_data(std: float, n: int = 400, d: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return 0.3 + std * torch.randn(n, d, generator=generator, dtype=torch.float64)


def noises(n: int, *shape: int, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64)


def explained(rho: np.ndarray, std: float) -> np.ndarray:
    """E |D(x_rho)|^2 per element about the mean: s^4 / (s^2 + rho^2). D is a martingale."""
    return std**4 / (std**2 + rho**2)


def exact_distances(rho: np.ndarray, std: float) -> np.ndarray:
    own = explained(rho, std)
    return np.abs(own[:, None] - own)


# KLUB


@pytest.mark.parametrize("process", [EDM, SD, Flow()], ids=["ve", "vp", "flow"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_distances_of_gaussian_predictions(process, final) -> None:
    std = 0.5
    fine = make_grid(process, 25, "softlog", final=final)
    found = prediction_distances(GaussianDenoiser(process, 0.3, std), gaussian_data(std), fine)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()
    # 6,400 squares have a relative deviation of sqrt(2 / 6400) = 0.018.
    assert np.allclose(found, exact_distances(fine.rho, std), rtol=0.09, atol=1e-12)


@pytest.mark.parametrize("power", [3.0, 1.0, 0.0, -0.5])
def test_the_integral_against_quadrature(power: float) -> None:
    std, rho = 0.5, make_grid(EDM, 400, "logsnr", final="sigma_min").rho
    cost = klub_cost(rho, exact_distances(rho, std), power=power)
    for i, j in [(0, 400), (0, 60), (150, 300), (250, 400)]:
        anchor = explained(rho[i], std)
        wanted, _ = quad(
            # In ln t, where the integrand is smooth.
            lambda u, a=anchor: np.exp(u * (1 - power)) * (explained(np.exp(u), std) - a),
            np.log(rho[j]), np.log(rho[i]), epsabs=0, epsrel=1e-9, limit=200,
        )  # fmt: skip
        # The trapezoid is off by (h / scale)^2 / 12 with h = ln(40000) / 400 = 0.026.
        assert cost[i, j] == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("power", [0.5, 0.0])
def test_the_integral_from_no_signal_to_no_noise(power: float) -> None:
    std, rho = 0.5, make_grid(Flow(), 400, "softlog").rho
    assert np.isinf(rho[0])
    assert rho[-1] == 0
    cost = klub_cost(rho, exact_distances(rho, std), power=power)
    wanted = quad(lambda t: t**-power * explained(t, std), 0, np.inf)[0]  # the anchor has 0
    # The last piece, to 0, is a mean of its ends.
    assert cost[0, -1] == pytest.approx(wanted, rel=1e-2)
    with pytest.raises(ValueError, match="between -1 and 1 on levels that end at 0, got 3"):
        klub_cost(rho, exact_distances(rho, std), power=3.0)


def test_splitting_a_jump_never_costs_more_of_exact_predictions() -> None:
    fine = make_grid(EDM, 40, "logsnr", final="sigma_min")
    for power in (0.0, 1.0, 3.0):
        cost = klub_cost(fine.rho, exact_distances(fine.rho, 0.5), power=power)
        for k in range(1, 40):
            # Equality but for rounding where nothing is learned in between.
            parts = cost[:k, k, None] + cost[None, k, k + 1 :]
            assert np.all(parts <= cost[:k, k + 1 :] * (1 + 1e-9))
        totals = [best_path(cost, n).total for n in range(1, 41)]
        assert np.all(np.diff(totals) <= 0)


@pytest.mark.parametrize("std", [0.5, 1.0])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_best_gaussian_grid_of_klub_3(std: float, n: int) -> None:
    """Equal gaps in ln(1 + s^2 / rho^2).

    A short step h costs h^2 rho^-2 / (s^2 + rho^2)^2, so that nodes have a density proportional to
    its root, 1 / (rho (s^2 + rho^2)).
    """
    fine = make_grid(EDM, 200, "logsnr", final="sigma_min")
    data = gaussian_data(std)
    found = prediction_distances(GaussianDenoiser(EDM, 0.3, std), data, fine)
    cost = klub_cost(fine.rho, found, power=3.0)
    path = best_path(cost, n)

    def place(rho: np.ndarray) -> np.ndarray:
        return np.log1p(std**2 / rho**2)

    equal = np.linspace(place(fine.rho[0]), place(fine.rho[-1]), n + 1)
    # The law is that of short steps, and the least is flat: a third of a gap, 1 % of the cost.
    assert np.abs(place(fine.rho[list(path.nodes)]) - equal).max() < 0.33 * equal[-1] / n
    by_law = rounded_path(fine, std / np.sqrt(np.expm1(equal)))
    # Where both are one path, its costs are added in another order: to rounding it is the least.
    assert path.total <= path_cost(cost, by_law) * (1 + 1e-12)
    assert path_cost(cost, by_law) <= 1.01 * path.total


def test_paths_do_not_depend_on_the_batch() -> None:
    fine = make_grid(SD, 12, "softlog")
    denoiser, data = GaussianDenoiser(SD, 0.3, 0.5), gaussian_data(0.5, 30)
    whole, parts = (prediction_distances(denoiser, data, fine, batch=b) for b in (64, 7))
    assert np.allclose(whole, parts, rtol=1e-10)
    assert not np.allclose(whole, prediction_distances(denoiser, data, fine, seed=100), rtol=1e-3)


# Jumps from a teacher's trajectory


def test_the_best_gaussian_grid_of_ddim_is_the_tan_form() -> None:
    """In the angle atan(rho) DDIM shrinks a unit Gaussian by cos of its step: equal ones are best.

    It is the tan form of Align Your Steps, arXiv:2404.14507.
    """
    fine = make_grid(EDM, 100, "tan")
    denoiser = GaussianDenoiser(EDM, 0.0, 1.0)
    cost = teacher_cost(denoiser, noises(64, 16), fine, order=1)
    angle = np.arctan(fine.rho)
    wanted = (1 - np.cos(angle[:, None] - angle)) ** 2
    # 64 times 16 squares, and the teacher's own first steps.
    assert np.allclose(np.triu(cost), np.triu(wanted), rtol=0.05, atol=1e-6)
    for n in (1, 2, 4, 5, 10, 20):
        assert best_path(cost, n).nodes == tuple(range(0, 101, 100 // n))


@pytest.mark.parametrize(("order", "slope"), [(1, 2), (2, 3), (3, 4)])
def test_the_order_of_a_jump(order: int, slope: int) -> None:
    fine = make_grid(SD, 200, "logsnr", final="sigma_min")
    denoiser = GaussianDenoiser(SD, 0.2, torch.tensor([0.5, 1.0]))
    cost = teacher_cost(denoiser, noises(16, 2), fine, order=order)
    centres = range(90, 120, 6)
    errors = [np.mean([cost[i, i + gap] for i in centres]) ** 0.5 for gap in (4, 8)]
    # One jump loses h^(order + 1); steps of 0.12 and 0.25 in lambda are not quite asymptotic.
    assert np.log2(errors[1] / errors[0]) == pytest.approx(slope, abs=0.25)


def test_gits_measures_how_far_an_euler_jump_leaves_the_chord() -> None:
    problem = load_problem("mix8")
    fine = make_grid(problem.process, 12, "softlog")
    noise = problem.initial_noise(5, seed=6, dtype=torch.float64)
    cost = gits_cost(problem.denoiser, noise, fine, batch=2)
    path = teacher(problem.denoiser, noise, fine)
    y = [x / a for x, a in zip(path.states, fine.alpha, strict=True)]

    def off(point: torch.Tensor) -> np.ndarray:
        """Least distance to the line through start and end, on a scan of it."""
        chord, v = y[-1] - y[0], point - y[0]
        t = (v * chord).sum(1) / chord.square().sum(1)
        return (v - t[:, None] * chord).norm(dim=1).numpy()

    for i, j in [(0, 3), (2, 9), (5, 12), (11, 12)]:
        slope = (y[i] - path.outputs[i]) / fine.rho[i]
        landed = y[i] + (fine.rho[j] - fine.rho[i]) * slope
        assert cost[i, j] == pytest.approx(float((off(landed) - off(y[j])).mean()), abs=1e-9)


@pytest.mark.parametrize("process", [Flow(), discrete_vp(zero_terminal_snr=True)])
@pytest.mark.parametrize("make", [gits_cost, teacher_cost])
def test_costs_from_a_start_without_signal(process, make) -> None:
    fine = make_grid(process, 20, "softlog")
    cost = make(GaussianDenoiser(process, 0.2, torch.tensor([0.2, 1.0])), noises(8, 2), fine)
    assert np.isfinite(cost).all()
    assert best_path(cost, 5).nodes[0] == 0


class Asking:
    """Keeps the conditions of its calls."""

    process = SD

    def __init__(self) -> None:
        self.asked: list = []

    def __call__(self, x, level, cond=None):
        self.asked.append(cond)
        return 0 * x


def test_conditions_go_with_their_rows() -> None:
    fine, labels = make_grid(SD, 3, "softlog"), torch.arange(5)
    for make in (prediction_distances, gits_cost, teacher_cost):
        denoiser = Asking()
        make(denoiser, noises(5, 2), fine, cond=labels, batch=3)
        assert [c.tolist() for c in denoiser.asked] == [[0, 1, 2]] * 3 + [[3, 4]] * 3
        denoiser = Asking()
        make(denoiser, noises(5, 2), fine, cond={"prompt": labels}, batch=5)
        assert denoiser.asked[0]["prompt"].tolist() == list(range(5))


def test_nothing_keeps_gradients() -> None:
    x = noises(4, 2).requires_grad_()
    path = teacher(GaussianDenoiser(SD, 0.0, x.mean()), x, make_grid(SD, 5, "softlog"))
    assert not path.states.requires_grad


@pytest.mark.parametrize("make", [prediction_distances, gits_cost, teacher_cost])
def test_predictions_that_are_not_finite(make) -> None:
    class Broken(Asking):
        def __call__(self, x, level, cond=None):
            return x * float("nan")

    with pytest.raises(ValueError, match="not finite on the fine grid: check the model"):
        make(Broken(), noises(4, 2), make_grid(SD, 5, "softlog"))


GAUSSIAN = GaussianDenoiser(SD, 0.0, 1.0)
FEW = make_grid(SD, 5, "softlog")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gits_cost(GAUSSIAN, noises(0, 2), FEW), r"\(n, ...\), got \(0, 2\)"),
        (lambda: gits_cost(GAUSSIAN, noises(4, 2), FEW, batch=0), "at least 1, got 0"),
        (lambda: gits_cost(GAUSSIAN, noises(4, 2), FEW, sampler="unipc"), "without a corrector"),
        (lambda: gits_cost(GAUSSIAN, noises(4, 2), FEW, sampler="heun"), "one call a step"),
        (lambda: gits_cost(GAUSSIAN, noises(4, 2), FEW, sampler="ddim:eta=1"), "deterministic"),
        (lambda: gits_cost(GAUSSIAN, noises(4, 2), FEW, sampler="ddim:grid=tan"), "grid options"),
        (lambda: teacher_cost(GAUSSIAN, noises(4, 2), FEW, order=5), "1, 2, 3 or 4 .* got 5"),
        (lambda: klub_cost(grid_from_rho(SD, [9, 1]).rho, np.zeros((2, 2)), power=-2), "above -1"),
    ],
)
def test_refusals_in_one_line(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
