"""What the pipelines of diffusers send to ``set_timesteps``, one row for each way of sending.

A number of steps that is written out as levels means that number of network calls; other levels are
walked as they are; what cannot be either is refused.
"""

import ast
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import scheduler_classes

import fewstep
from fewstep.samplers.adapter.sent import TOLERANCE, count_in
from fewstep.schedules import Flow

CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
EULER = diffusers.FlowMatchEulerDiscreteScheduler
OFF_THE_NODES = ("singlestep", "rho_rk", "edm")  # they also call between the nodes, or above them
DYNAMIC = {"use_dynamic_shifting": True}
# Float32 of the peers, and of our own ``sigmas``.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def even(n: int) -> np.ndarray:
    return np.linspace(1.0, 1 / n, n)


# Who sends it; the scheduler's config; what is sent for n steps.
COUNTS: dict[str, tuple[dict, Callable[[int], dict[str, Any]]]] = {
    "SD3, Kandinsky 5, AuraFlow, PRX, Lumina: n": (
        {"shift": 3.0}, lambda n: {"num_inference_steps": n}),
    "HiDream, SD3 with mu: n and mu": (DYNAMIC, lambda n: {"num_inference_steps": n, "mu": 0.8}),
    "Flux, Flux2, Chroma, Krea2, Bria: an array and mu": (
        DYNAMIC, lambda n: {"sigmas": even(n), "mu": 0.6 + 0.01 * n}),
    "Qwen-Image: the same, with a last level": (
        {**DYNAMIC, "shift_terminal": 0.02}, lambda n: {"sigmas": even(n), "mu": 0.7}),
    "LTX, LTX2: the same": (
        {**DYNAMIC, "shift_terminal": 0.1}, lambda n: {"sigmas": even(n), "mu": 1.5}),
    "HunyuanVideo, HunyuanImage, Qwen-Image-Layered: down to 0": (
        {"shift": 7.0}, lambda n: {"sigmas": np.linspace(1.0, 0.0, n + 1)[:-1]}),
    "OmniGen: down to 0, of whole numbers": (
        {}, lambda n: {"sigmas": np.linspace(1, 0, n + 1)[:n]}),
    "Ernie: a float32 tensor": (
        {"shift": 3.0}, lambda n: {"sigmas": torch.linspace(1.0, 0.0, n + 1)[:-1]}),
    "Z-Image, LongCat-Audio: a list of float32": (
        {"shift": 3.0},
        lambda n: {"sigmas": torch.linspace(1, 1 / n, n, dtype=torch.float32).tolist()}),
    "LTX long prompts: a tensor with the end": (
        {}, lambda n: {"sigmas": torch.linspace(1, 0, n + 1)}),
    "Cosmos 3: from 1 - 1/N, and n": (
        {"shift": 10.0},
        lambda n: {"sigmas": np.linspace(0.999, 0.0, n + 1)[:-1], "num_inference_steps": n}),
    "ACE-Step with shift 1, one training time": (
        {"num_train_timesteps": 1}, lambda n: {"sigmas": even(n).astype(np.float32).tolist()}),
}  # fmt: skip


def ideogram(n: int) -> list[float]:
    z = torch.special.ndtri(torch.linspace(0, 1, n + 1, dtype=torch.float64))
    return (torch.special.expit(0.5 + z).clamp(1e-4, 0.9994)).flip(0)[:-1].float().tolist()


def stable_audio(n: int) -> list[float]:
    sigmas = torch.sigmoid(-(2.0 - torch.linspace(1, 0, n + 1) * 8.0))
    return [1.0, *sigmas[1:-1].tolist()]


LTX2 = [1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875]
LEVELS: dict[str, tuple[dict, dict[str, Any]]] = {
    "Ideogram 4: quantiles, a list of float32": ({}, {"sigmas": ideogram(12)}),
    "Stable Audio 3: of one training time": (
        {"num_train_timesteps": 1}, {"sigmas": stable_audio(12)}),
    "ACE-Step: shifted by the pipeline": (
        {"num_train_timesteps": 1}, {"sigmas": (3 * even(8) / (1 + 2 * even(8))).tolist()}),
    "LTX-2 and Sana-WM distilled: a list": ({}, {"sigmas": LTX2}),
    "with the end": ({}, {"sigmas": [*LTX2, 0.0]}),
    "of a user, shifted": ({"shift": 3.0}, {"sigmas": [1.0, 0.8, 0.5, 0.1]}),
    "of a user, shifted by mu and stretched": (
        {**DYNAMIC, "shift_terminal": 0.02}, {"sigmas": [1.0, 0.8, 0.5, 0.1], "mu": 0.7}),
    "of a user, made Karras'": (
        {"shift": 3.0, "use_karras_sigmas": True}, {"sigmas": [1.0, 0.8, 0.5, 0.1]}),
    "of a user, made exponential": (
        {"shift_terminal": 0.1, "use_exponential_sigmas": True}, {"sigmas": [1.0, 0.8, 0.1]}),
    "of a user, made beta's": (
        {"shift": 2.0, "use_beta_sigmas": True}, {"sigmas": [1.0, 0.8, 0.5, 0.1]}),
}  # fmt: skip


def cogview(n: int) -> np.ndarray:
    return np.linspace(1000, 1.0, n).astype(np.int64).astype(np.float32)


def glm(n: int) -> np.ndarray:
    return np.linspace(1000, 1.0, n + 1)[:-1].astype(np.int64).astype(np.float32)


@every_class
@pytest.mark.parametrize("way", COUNTS)
def test_a_count_by_any_way_is_that_many_calls(way: str, cls: type) -> None:
    config, sent = COUNTS[way]
    for n in (1, 7):
        ours, counted = (cls.from_config(EULER(**config).config) for _ in range(2))
        values = sent(n)
        ours.set_timesteps(**values)
        counted.set_timesteps(n, mu=values.get("mu"))
        assert len(ours.timesteps) == ours.num_inference_steps == n
        torch.testing.assert_close(ours.sigmas, counted.sigmas, rtol=0, atol=0)
        assert ours.grid_reason.startswith(counted.grid_reason)
        said = f"num_inference_steps={n} written out" in ours.grid_reason
        assert said == ("sigmas" in values)


@pytest.mark.parametrize("n", [1, 2, 5, 8, 10, 33, 50, 100])
def test_whatever_the_container(n: int) -> None:
    for values in (even(n), np.linspace(1, 0, n + 1)[:-1]):
        for kind in (list, tuple, np.array, torch.tensor, lambda v: torch.tensor(v).float(),
                     lambda v: np.float32(v).tolist(), lambda v: [*v, 0.0]):  # fmt: skip
            count = count_in(Flow(), None, kind(values))
            assert count is not None
            assert count.n == n
        # A wish is one by more than rounding.
        assert count_in(Flow(), None, values * (1 - 3 * TOLERANCE)) is None
        assert count_in(Flow(), values * 1000, values) is None


@pytest.mark.parametrize("cls", [fewstep.Heun, fewstep.EDMStochastic, fewstep.Euler, fewstep.UniPC])
def test_grid_diffusers_walks_them_in_as_many_calls(cls: type) -> None:
    """Solvers of two calls a step take the levels of fewer steps."""
    peer = EULER(**DYNAMIC, shift_terminal=0.02)
    for n in (5, 10):
        ours = cls.from_config(peer.config, grid="diffusers")
        ours.set_timesteps(sigmas=even(n), mu=0.7)
        assert len(ours.timesteps) == n
        peer.set_timesteps(sigmas=even(ours.grid.nfe), mu=0.7)
        np.testing.assert_allclose(ours.grid.sigma, peer.sigmas, **CLOSE)


@every_class
@pytest.mark.parametrize("way", LEVELS)
def test_other_levels_are_walked_as_diffusers_finishes_them(way: str, cls: type) -> None:
    config, values = LEVELS[way]
    peer = EULER(**config)
    ours = cls.from_config(peer.config)
    ours.set_timesteps(**values)
    shown = [value for value in values["sigmas"] if value]
    peer.set_timesteps(**{**values, "sigmas": shown})
    np.testing.assert_allclose(ours.grid.sigma, peer.sigmas, **CLOSE)
    assert ours.grid_reason.startswith("sigmas=")
    for key, word in (("shift_terminal", "stretched"), ("use_karras_sigmas", "use_karras_sigmas")):
        assert (word in ours.grid_reason) == bool(config.get(key))
    if cls is fewstep.Euler:
        np.testing.assert_allclose(ours.timesteps, peer.timesteps, **CLOSE)


@every_class
@pytest.mark.parametrize("sent", [cogview, glm])
def test_times_told_apart_from_levels(sent: Callable[[int], np.ndarray], cls: type) -> None:
    """CogView4 and GLM-Image send both: times are told as they are, levels are shifted by mu.

    Solvers of two calls a step make n calls too, on the same writing of fewer steps.
    """
    peer = EULER(use_dynamic_shifting=True, time_shift_type="linear")
    ours, times = cls.from_config(peer.config), sent(9)
    ours.set_timesteps(timesteps=times, sigmas=times / 1000, mu=3.25)
    assert len(ours.timesteps) == 9
    if ours.sampler in ("heun", "edm"):
        times = sent(ours.grid.nfe)
    peer.set_timesteps(timesteps=times, sigmas=times / 1000, mu=3.25)
    np.testing.assert_allclose(ours.grid.sigma, peer.sigmas, **CLOSE)
    if ours.sampler not in OFF_THE_NODES:
        assert set(ours.timesteps.tolist()) == set(times.tolist())
    assert ours.grid_reason == "timesteps= and sigmas="
    # Calls between the nodes are told by the same rule: t / N is the level before its shift.
    for row in ours.plan.evaluations:
        before = row.sigma / (row.sigma + 3.25 * (1 - row.sigma))
        assert row.time == pytest.approx(1000 * before, rel=1e-6)


def test_times_and_levels_that_do_not_fit() -> None:
    scheduler = fewstep.Euler.from_config(EULER().config)
    with pytest.raises(ValueError, match="2 timesteps beside 3 sigmas: give one time for each"):
        scheduler.set_timesteps(timesteps=[900, 400], sigmas=[0.9, 0.5, 0.1])
    with pytest.raises(ValueError, match="must fall from at most 1000"):
        scheduler.set_timesteps(timesteps=[400, 900], sigmas=[0.9, 0.5])
    with pytest.raises(ValueError, match="num_inference_steps=3 beside 2 levels"):
        scheduler.set_timesteps(3, timesteps=[900, 400], sigmas=[0.9, 0.5])


@every_class
def test_refused_by_what_they_are(cls: type) -> None:
    cosmos = EULER(use_karras_sigmas=True)
    cosmos.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0)
    with pytest.raises(ValueError, match="Cosmos 2 sends rising levels"):
        cls.from_config(cosmos.config)
    ours = cls.from_config(EULER().config)
    with pytest.raises(ValueError, match="fall strictly"):
        ours.set_timesteps(sigmas=torch.linspace(0, 1, 8))
    # The pipeline writes into whatever scheduler it is given.
    ours.register_to_config(sigma_max=80.0, sigma_min=0.002, sigma_data=1.0)
    with pytest.raises(ValueError, match="keep that scheduler"):
        ours.set_timesteps(8)
    with pytest.raises(ValueError, match="invert_sigmas=True has no fewstep noise process"):
        cls.from_config(EULER(invert_sigmas=True).config)  # Mochi


@every_class
@pytest.mark.parametrize("terminal", [0.02, 0.1])
def test_the_last_call_lies_where_the_config_says(terminal: float, cls: type) -> None:
    """Of every grid of ours: the model was trained so (LTX, Qwen-Image)."""
    config = EULER(shift=3.0, shift_terminal=terminal).config
    for grid in (None, "karras", "trailing", "diffusers"):
        for n in (4, 9):
            ours = cls.from_config(config, **({"grid": grid} if grid else {}))
            ours.set_timesteps(n)
            assert len(ours.timesteps) == n
            assert ours.grid.sigma[-2] == pytest.approx(terminal, rel=1e-9)
            if ours.sampler not in OFF_THE_NODES:
                assert ours.sigmas[-2] == pytest.approx(terminal, rel=1e-6)  # float32
            assert ours.sigmas[-1] == 0
    ours = cls.from_config(config, shift_terminal=0.0)
    ours.set_timesteps(9)
    plain = cls.from_config(EULER(shift=3.0).config)
    plain.set_timesteps(9)
    assert torch.equal(ours.sigmas, plain.sigmas)
    with pytest.raises(ValueError, match=re.escape("shift_terminal must lie in (0, 1)")):
        cls.from_config(config, shift_terminal=1.5).set_timesteps(4)


@every_class
def test_one_training_time(cls: type) -> None:
    """Stable Audio 3 and ACE-Step tell their networks sigma itself."""
    ours = cls.from_config(EULER(num_train_timesteps=1).config)
    usual = cls.from_config(EULER().config)
    for scheduler in (ours, usual):
        scheduler.set_timesteps(8)
    np.testing.assert_allclose(ours.sigmas, usual.sigmas, rtol=1e-6)
    np.testing.assert_allclose(ours.timesteps, usual.timesteps / 1000, rtol=1e-6)
    assert ours.timesteps[0] == 1


# --- the source of the installed pipelines --------------------------------------------------------

N = 7
# Not a count: Cosmos 2 (refused, above).
NOT_COUNTS = {"pipeline_cosmos2_video2world.py", "pipeline_cosmos2_text2image.py"}
# What the expressions below may name.
STEPS = SimpleNamespace(num_inference_steps=N)
SCHEDULER = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
NAMES = {
    "np": np, "torch": torch, "num_inference_steps": N, "block_state": STEPS, "timesteps": None,
    "self": SimpleNamespace(scheduler=SCHEDULER),
    "components": SimpleNamespace(scheduler=SCHEDULER),
    "sigmas": None, "sigmas_dtype": torch.float64,
}  # fmt: skip


def written_out() -> list[tuple[str, str]]:
    """Every ``sigmas = ...linspace(...)`` of the installed pipelines: (file, expression)."""
    root, found = Path(diffusers.__file__).parent, []
    for folder in ("pipelines", "modular_pipelines"):
        for path in sorted((root / folder).rglob("*.py")):
            lines = path.read_text().splitlines()
            for i, line in enumerate(lines):
                if re.match(r"[\s\w.]*\bsigmas = .*linspace", line):
                    found.append((path.name, assigned(lines[i : i + 9])))
    return found


def assigned(lines: list[str]) -> str:
    """The right side of the assignment that these lines begin with."""
    for end in range(1, len(lines) + 1):
        try:
            tree = ast.parse(textwrap.dedent("\n".join(lines[:end])))
        except SyntaxError:
            continue  # it goes on in the next line
        assert isinstance(tree.body[0], ast.Assign)
        return ast.unparse(tree.body[0].value)
    raise AssertionError(lines[0])


def test_every_pipeline_that_writes_out_a_count() -> None:
    found = written_out()
    assert len(found) > 20  # 30 in diffusers 0.35, more since
    for file, expression in found:
        values = eval(expression, dict(NAMES))
        count = count_in(Flow(), None, values)
        assert (count is None) == (file in NOT_COUNTS), (file, expression)
        if count is not None:
            assert count.n == N
            assert math.isclose(count.top, 1.0, abs_tol=1.1e-3)
