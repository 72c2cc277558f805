"""Published schedules: the lists at their own length, between, and on other processes."""

import numpy as np
import pytest
from diffusers.schedulers.scheduling_utils import AysSchedules

from fewstep.samplers import parse_spec
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp, make_grid
from fewstep.schedules.grids import NAMED_GRIDS
from fewstep.schedules.published import PUBLISHED, Published

SD = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
SVD = VE(0.002, 700.0, "log")
HOMES: dict[str, NoiseProcess] = {
    "ays_sd15": SD, "ays_sdxl": SD, "ays_svd": SVD, "oss_flux": Flow(), "oss_wan": Flow(),
}  # fmt: skip
every_list = pytest.mark.parametrize(("name", "process"), HOMES.items(), ids=HOMES)


def levels_of(name: str) -> np.ndarray:
    rule = PUBLISHED[name]
    assert isinstance(rule, Published)
    return np.array(rule.levels)


def native(process: NoiseProcess, grid) -> np.ndarray:
    return grid.sigma if isinstance(process, Flow) else grid.rho


def test_every_list_is_tested_and_named() -> None:
    assert list(HOMES) == list(PUBLISHED)
    assert set(PUBLISHED) <= set(NAMED_GRIDS)


@every_list
def test_at_its_own_length_the_list_itself(name: str, process: NoiseProcess) -> None:
    levels = levels_of(name)
    grid = make_grid(process, len(levels) - 1, name)
    # exp(ln()) and, for a flow, 1 - sigma lose a few roundings.
    assert np.allclose(native(process, grid)[1:-1], levels[1:-1], rtol=1e-12)
    assert grid.rho[0] == process.rho_max
    assert grid.rho[-1] == 0


@every_list
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_every_number_of_calls(name: str, process: NoiseProcess, final) -> None:
    logs = np.log(levels_of(name))
    for n in range(1, 61):
        grid = make_grid(process, n, name, final=final)
        assert grid.nfe == n
        assert grid.rho[0] == process.rho_max
        assert grid.rho[-1] == (0 if final == "zero" else process.rho_min)
        assert np.all(grid.rho[:-1] > process.rho_min)
        place = np.arange(1, n) / n * (len(logs) - 1)
        low = place.astype(int)  # written out: the weight of the entries on both sides
        between = logs[low] + (place - low) * (logs[low + 1] - logs[low])
        assert np.allclose(np.log(native(process, grid)[1:-1]), between, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ays_sd15", "StableDiffusionSigmas"),
        ("ays_sdxl", "StableDiffusionXLSigmas"),
        ("ays_svd", "StableDiffusionVideoSigmas"),
    ],
)
def test_diffusers_has_them_rounded(name: str, key: str) -> None:
    theirs = np.array(AysSchedules[key])
    # Theirs have three decimals and differ in the third digit: 0.113 for 0.1114.
    assert np.allclose(theirs[:-1], levels_of(name)[:-1], rtol=0.015, atol=0)


def test_times_are_those_of_diffusers() -> None:
    for name, key in [("ays_sd15", "StableDiffusion"), ("ays_sdxl", "StableDiffusionXL")]:
        times = make_grid(SD, 10, name).time[:-1]
        # They are whole training times.
        assert np.abs(times - AysSchedules[f"{key}Timesteps"]).max() < 1


@pytest.mark.parametrize(
    ("name", "process"),
    [
        ("ays_sd15", discrete_vp()),
        ("ays_sdxl", VE()),
        ("ays_svd", SD),
        ("ays_sd15", Flow()),
        ("ays_sd15", discrete_vp("scaled_linear", zero_terminal_snr=True)),
        ("oss_flux", SD),
    ],
)
def test_other_processes_are_refused_in_one_line(name: str, process: NoiseProcess) -> None:
    with pytest.raises(ValueError, match=f"'{name}' was tuned to .* use a grid that") as error:
        make_grid(process, 10, name)
    assert "\n" not in str(error.value)


def test_a_shift_is_in_the_list_already() -> None:
    plain, shifted = (make_grid(Flow(), 8, "oss_wan", shift=s) for s in (1.0, 3.0))
    assert np.array_equal(plain.rho, shifted.rho)


def test_in_a_spec() -> None:
    plan = parse_spec("dpmpp:grid=ays_sdxl").build(SD, 10)
    assert np.allclose(plan.sigmas(native=False)[1:-1], levels_of("ays_sdxl")[1:-1], rtol=1e-9)
