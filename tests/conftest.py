"""Shared problems with known answers."""

import pytest
import torch
from helpers import Mixture1D

from fewstep.schedules import ContinuousVP


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of commands that are called in this process, which take as long as the machine is busy."""
    monkeypatch.setattr("fewstep.progress.FIRST", 3600.0)


@pytest.fixture(scope="session")
def mixture() -> Mixture1D:
    return Mixture1D()


@pytest.fixture(scope="session")
def line() -> torch.Tensor:
    return torch.linspace(-2, 2, 17, dtype=torch.float64)


@pytest.fixture(scope="session")
def continuous_vp() -> ContinuousVP:
    return ContinuousVP()
