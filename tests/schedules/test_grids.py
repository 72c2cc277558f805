"""Grids: every rule on every process gives a grid, with exact ends; bad levels are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewstep.schedules import (
    GRIDS,
    VE,
    ContinuousVP,
    Flow,
    Grid,
    NoiseProcess,
    discrete_vp,
    grid_from_rho,
    grid_from_sigmas,
    grid_from_times,
    make_grid,
)

SD = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
PROCESSES: dict[str, NoiseProcess] = {
    "linear": discrete_vp(),
    "scaled_linear": SD,
    "cosine": discrete_vp("squaredcos_cap_v2"),
    "zero-snr": discrete_vp("scaled_linear", zero_terminal_snr=True),
    "continuous": ContinuousVP(),
    "ve": VE(),
    "edm": VE(time_is="log"),
    "atan": VE(0.3, 500.0, time_is="atan"),
    "flow": Flow(),
}
every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
every_grid = pytest.mark.parametrize("name", GRIDS)


@every_process
@every_grid
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_every_grid_of_every_process(process: NoiseProcess, name: str, final) -> None:
    for n in range(1, 51):
        grid = make_grid(process, n, name, final=final)
        assert grid.nfe == n
        assert grid.rho.shape == grid.time.shape == (n + 1,)
        assert not np.isnan(grid.time).any()
        assert np.all(grid.rho[1:] < grid.rho[:-1])
        assert np.all(grid.lam[1:] > grid.lam[:-1])
        assert grid.rho[-1] == (0 if final == "zero" else process.rho_min)
        if name != "leading":
            assert grid.rho[0] == process.rho_max
        # Nodes are called, so they must be levels the network was trained on (tan may step below
        # the least level when it heads for 0).
        assert np.all(grid.rho[:-1] <= process.rho_max)
        if name != "tan":
            assert np.all(grid.rho[:-1] >= process.rho_min * (1 - 1e-9))
        some = np.isfinite(grid.rho)
        assert np.allclose(grid.alpha[some] * grid.rho[some], grid.sigma[some], rtol=1e-14)
        assert np.all(grid.alpha[~some] == 0)
        assert np.all(grid.sigma[~some] == 1)


def test_rules_place_nodes_where_they_say() -> None:
    n = 8
    times = make_grid(SD, n, "linspace", final="sigma_min").time
    assert np.allclose(np.diff(times), -999 / n)
    roots = np.sqrt(make_grid(SD, n, "quadratic", final="sigma_min").time)
    assert np.allclose(np.diff(roots, 2), 0, atol=1e-6)  # times near 0 are roots of roundings
    assert np.allclose(make_grid(SD, n, "trailing").time[:-1], 999 - 125 * np.arange(n))
    assert np.allclose(make_grid(SD, n, "leading").time[:-1], 876 - 125 * np.arange(n))
    lam = make_grid(SD, n, "logsnr", final="sigma_min").lam
    assert np.allclose(np.diff(lam, 2), 0)
    karras = make_grid(VE(), n, "karras", final="sigma_min").rho ** (1 / 7)
    assert np.allclose(np.diff(karras, 2), 0)
    cubic = make_grid(VE(), n, "karras", final="sigma_min", power=3).rho ** (1 / 3)
    assert np.allclose(np.diff(cubic, 2), 0)
    angle = np.arctan(make_grid(VE(), n, "tan").rho)
    assert np.allclose(np.diff(angle, 2), 0)
    # A flow's levels are placed in sigma, from pure noise.
    assert np.allclose(np.diff(np.log(make_grid(Flow(), n, "exponential").sigma[:-1]), 2), 0)


def test_beta_quantiles() -> None:
    from scipy.stats import beta

    times = make_grid(SD, 7, "beta").time[:-1]
    assert np.allclose(times, 999 * beta.ppf(np.linspace(1, 0, 7), 0.6, 0.6), atol=1e-6)


@given(shift=st.floats(0.05, 20), n=st.integers(1, 30))
def test_shift_of_a_flow(shift: float, n: int) -> None:
    plain = make_grid(Flow(), n, "linspace").sigma
    shifted = make_grid(Flow(), n, "linspace", shift=shift).sigma
    # 1 - sigma is read from rho, so equality is to a few roundings.
    assert np.allclose(shifted, shift * plain / (1 + (shift - 1) * plain), rtol=1e-12)
    assert shifted[0] == 1
    assert shifted[-1] == 0


@every_process
def test_explicit_levels_with_and_without_the_end(process: NoiseProcess) -> None:
    grid = make_grid(process, 5, "logsnr")
    sigmas = grid.sigma if isinstance(process, Flow) else grid.rho
    again = [grid_from_sigmas(process, list(sigmas[:-1])), grid_from_sigmas(process, sigmas)]
    for other in [*again, grid_from_times(process, list(grid.time[:-1]))]:
        assert other.nfe == 5
        # Times are inverted, and a flow's rho is read from 1 - sigma.
        assert np.allclose(other.rho, grid.rho, rtol=1e-9)
        assert np.allclose(other.time, grid.time, rtol=1e-9)
        assert other.rho[-1] == 0


def test_explicit_times_of_a_flow_may_end_at_zero() -> None:
    grid = grid_from_times(Flow(), [1000.0, 400.0, 0.0])
    assert grid.nfe == 2
    assert list(grid.sigma) == [1.0, pytest.approx(0.4), 0.0]
    assert grid_from_times(SD, [999, 400, 0]).nfe == 3  # time 0 of a table has noise


def test_explicit_end() -> None:
    assert grid_from_sigmas(SD, [10.0, 1.0], end=SD.rho_min).rho[-1] == SD.rho_min
    grid = grid_from_times(SD, [999, 10], end=SD.rho_min)
    assert list(grid.time) == [999, 10, 0]
    assert grid_from_times(SD, [640.5]).rho[0] == float(SD.rho(640.5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: grid_from_times(SD, [900, float("nan")]), "timesteps .* replace or drop"),
        (lambda: grid_from_sigmas(SD, [9.0, float("nan")]), "sigmas .* replace or drop"),
        (lambda: grid_from_rho(SD, np.array([9.0, np.nan, 0])), r"\[1\] are NaN: replace"),
        (lambda: grid_from_times(SD, []), "non-empty"),
        (lambda: grid_from_sigmas(SD, []), "non-empty"),
        (lambda: grid_from_sigmas(SD, np.zeros((2, 2))), "non-empty list"),
        (lambda: grid_from_times(SD, [100, 500]), "sort the levels"),
        (lambda: grid_from_times(SD, [500, 500, 100]), "drop repeats"),
        (lambda: grid_from_sigmas(VE(), [1.0, 2.0, 0.0]), "entries 0 and 1 .* sort the levels"),
        (lambda: grid_from_sigmas(VE(), [1.0, -2.0]), "not go below 0"),
        (lambda: grid_from_times(SD, [1500, 100]), r"\[0, 999\] .* units"),
        (lambda: grid_from_times(Flow(), [1500, 100]), r"\[0, 1000\] .* units"),
        (lambda: grid_from_sigmas(Flow(), [14.6, 0.1]), r"\[0, 1\] .* units"),
        (lambda: Grid(SD, np.array([1.0]), np.array([0.0])), "at least one node and an end"),
        (lambda: make_grid(SD, 0), "at least 1 call, got nfe = 0"),
        (lambda: make_grid(SD, 5, "karas"), "known: linspace"),
        (lambda: make_grid(SD, 5, final="none"), "'zero' or 'sigma_min'"),  # type: ignore[arg-type]
        (lambda: make_grid(SD, 5, shift=3.0), "unless the process is a flow"),
        (lambda: make_grid(Flow(), 5, shift=0.0), r"shift must lie in \(0, "),
    ],
)
def test_bad_grids_are_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
