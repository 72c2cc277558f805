"""Noise processes: inverses, exact ends, and what each kind promises about alpha and sigma."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewstep.schedules import VE, ContinuousVP, DiscreteVP, Flow, NoiseProcess, discrete_vp

COSINE = discrete_vp("squaredcos_cap_v2")
PROCESSES: dict[str, NoiseProcess] = {
    "linear": discrete_vp(),
    "scaled_linear": discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "cosine": COSINE,
    "sigmoid": discrete_vp("sigmoid"),
    "laplace": discrete_vp("laplace"),
    "exp": discrete_vp("exp"),
    "trained": discrete_vp(trained_betas=[0.1, 0.3, 0.2, 0.5]),
    "zero-snr": discrete_vp("scaled_linear", zero_terminal_snr=True),
    "zero-snr-cosine": discrete_vp("squaredcos_cap_v2", zero_terminal_snr=True),
    "continuous": ContinuousVP(),
    "continuous-1000": ContinuousVP(time_scale=1000.0),
    "ve": VE(),
    "edm": VE(time_is="log"),
    "atan": VE(0.3, 500.0, time_is="atan"),
    "flow": Flow(),
    "flow-50": Flow(50, sigma_min=0.02),
}
VP = [name for name, p in PROCESSES.items() if isinstance(p, DiscreteVP | ContinuousVP)]
ZERO_SNR = ["zero-snr", "zero-snr-cosine"]
every = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
unit = st.floats(0.0, 1.0)


def time_range(process: NoiseProcess) -> tuple[float, float]:
    low, high = process.time([process.rho_min, process.rho_max])
    return float(low), float(high)


@every
@given(part=unit)
def test_time_inverts_rho(process: NoiseProcess, part: float) -> None:
    low, high = time_range(process)
    time = low + part * (high - low)
    back = float(process.time(process.rho(time)))
    # The ends are as exact as the middle: 1e-9 of the range is far below one training time. The
    # tangent near 1 (atan) and 1 - sigma near 0 (flow) lose digits, which cost no more than that.
    assert back == pytest.approx(time, abs=1e-9 * (high - low))


@every
@given(part=unit)
def test_rho_inverts_time(process: NoiseProcess, part: float) -> None:
    top = process.rho_max if np.isfinite(process.rho_max) else 1e3
    rho = process.rho_min * (top / process.rho_min) ** part
    # rho of a flow is read from sigma = 1 - 1/(1 + rho), which has 1e3 times less precision there.
    assert float(process.rho(process.time(rho))) == pytest.approx(rho, rel=1e-10)


@every
def test_ends_are_exact(process: NoiseProcess) -> None:
    low, high = time_range(process)
    # VE times are logarithms or angles: one rounding there, times the slope of its inverse.
    assert float(process.rho(high)) == pytest.approx(process.rho_max, rel=1e-12)
    assert float(process.rho(low)) == pytest.approx(process.rho_min, rel=1e-12)
    alpha, sigma = process.from_rho([0.0, process.rho_max])
    assert alpha[0] == 1
    assert sigma[0] == 0
    assert process.start_scale == (process.rho_max if isinstance(process, VE) else 1)
    assert sigma[1] <= process.start_scale


@every
def test_noise_grows_strictly_with_time(process: NoiseProcess) -> None:
    times = np.linspace(*time_range(process), 3001)
    rho = process.rho(times)
    assert not np.isnan(rho).any()
    assert np.all(np.diff(rho[np.isfinite(rho)]) > 0)
    assert np.isfinite(rho[:-1]).all()
    assert np.all(np.diff(process.time(rho)) > 0)


@every
def test_label_grows_strictly_down_to_no_noise(process: NoiseProcess) -> None:
    top = process.rho_max if np.isfinite(process.rho_max) else 1e6
    rho = np.concatenate([[0.0], np.geomspace(process.rho_min / 100, top, 500)])
    rho = np.append(rho, np.inf) if np.isinf(process.rho_max) else rho
    label = process.label(rho)
    assert np.all(np.isfinite(label))
    assert np.all(np.diff(label) > 0)


@every
@given(part=unit)
def test_levels_agree_with_the_ratio(process: NoiseProcess, part: float) -> None:
    low, high = time_range(process)
    time = low + part * (high - low)
    alpha, sigma = process.alpha_sigma(time)
    assert 0 <= alpha <= 1
    rho = float(process.rho(time))
    assert (alpha == 0) == np.isinf(rho)
    assert sigma == (1 if np.isinf(rho) else pytest.approx(alpha * rho, rel=1e-14))


@pytest.mark.parametrize("name", VP)
@given(part=unit)
def test_variance_is_preserved(name: str, part: float) -> None:
    process = PROCESSES[name]
    low, high = time_range(process)
    alpha, sigma = process.alpha_sigma(low + part * (high - low))
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=2e-15)  # a few roundings


@given(part=unit)
def test_flow_is_a_line_and_ve_keeps_the_signal(part: float) -> None:
    alpha, sigma = Flow().alpha_sigma(1000 * part)
    assert alpha + sigma == pytest.approx(1, abs=4e-16)
    assert sigma == pytest.approx(part, abs=4e-16)
    assert VE().alpha_sigma(80 * part) == (1.0, 80 * part)


@pytest.mark.parametrize("name", ZERO_SNR)
def test_zero_terminal_snr_is_exact(name: str) -> None:
    process = PROCESSES[name]
    assert isinstance(process, DiscreteVP)
    alpha, sigma = process.alpha_sigma([0, 998, 999])
    assert alpha[2] == 0
    assert sigma[2] == 1
    assert alpha[1] > 0
    plain = COSINE if "cosine" in name else discrete_vp("scaled_linear")
    assert alpha[0] == pytest.approx(float(plain.alpha_sigma(0)[0]), rel=1e-15)
    # Between the last two times alpha itself falls linearly.
    assert float(process.alpha_sigma(998.25)[0]) == pytest.approx(0.75 * alpha[1], rel=1e-12)
    assert float(process.time(np.inf)) == 999


def test_training_times_have_the_tables_own_levels() -> None:
    for name in ("linear", "cosine", "zero-snr"):
        process = PROCESSES[name]
        assert isinstance(process, DiscreteVP)
        alpha, sigma = process.alpha_sigma(np.arange(1000))
        squares = np.array(process.alphas_cumprod)
        assert np.allclose(alpha**2, squares, rtol=1e-14, atol=0)
        assert np.allclose(sigma**2, 1 - squares, rtol=1e-12, atol=0)


def test_times_outside_a_table_are_clamped() -> None:
    process = discrete_vp()
    assert list(process.rho([-5.0, 2000.0])) == [process.rho_min, process.rho_max]
    assert list(process.time([0.0, 1e9])) == [0, 999]


def test_continuous_vp_solves_its_equation() -> None:
    # d ln(alpha) / dt = -beta(t) / 2 with beta linear from 0.1 to 20.
    t = np.linspace(0.01, 1, 200)
    slope = (
        np.log(ContinuousVP().alpha_sigma(t + 1e-5)[0])
        - np.log(ContinuousVP().alpha_sigma(t - 1e-5)[0])
    ) / 2e-5
    assert np.allclose(slope, -(0.1 + 19.9 * t) / 2, rtol=1e-6)  # central difference


@every
def test_identity_is_json_and_tells_apart(process: NoiseProcess) -> None:
    assert json.loads(json.dumps(process.identity())) == process.identity()
    same = [p for p in PROCESSES.values() if p.identity() == process.identity()]
    assert same == [process]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiscreteVP((0.5,)), "at least two"),
        (lambda: DiscreteVP((0.5, float("nan"))), "finite"),
        (lambda: DiscreteVP((0.5, 0.6)), "fall strictly"),
        (lambda: DiscreteVP((0.5, 0.0, -0.1)), "fall strictly"),
        (lambda: discrete_vp("quadratic"), "known: linear"),
        (lambda: ContinuousVP(beta_min=3, beta_max=2), "beta_min < beta_max"),
        (lambda: VE(0.0, 80.0), "sigma_min < sigma_max"),
        (lambda: VE(time_is="ln"), "time_is must be"),  # type: ignore[arg-type]
        (lambda: Flow(sigma_min=1.0), "must lie in"),
    ],
)
def test_impossible_processes_are_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
