"""Shared problems with known answers."""

from collections.abc import Iterator

import pytest
import torch
from helpers import Mixture1D

from fewstep.schedules import ContinuousVP


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_first_line() -> Iterator[None]:
    """Of commands that are called in this process, which take as long as the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:  # before the fixtures of modules, which call some
        patch.setattr("fewstep.progress.FIRST", 3600.0)
        yield


@pytest.fixture(scope="session")
def mixture() -> Mixture1D:
    return Mixture1D()


@pytest.fixture(scope="session")
def line() -> torch.Tensor:
    return torch.linspace(-2, 2, 17, dtype=torch.float64)


@pytest.fixture(scope="session")
def continuous_vp() -> ContinuousVP:
    return ContinuousVP()
