r"""What a network predicts, and the data prediction x0 that follows from it.

At x = alpha x0 + sigma eps the four usual predictions are related by

=================== ========================= ========================================
prediction type     the network's output      x0
=================== ========================= ========================================
``epsilon``         eps                       (x - sigma eps) / alpha
``sample``          x0                        itself
``v_prediction``    alpha eps - sigma x0      (alpha x - sigma v) / (alpha^2 + sigma^2)
``flow_prediction`` eps - x0                  (x - sigma v) / (alpha + sigma)
=================== ========================= ========================================

(v: Salimans and Ho, arXiv:2202.00512, appendix D; flow: Lipman et al., arXiv:2210.02747.) The
denominators are 1 for a variance-preserving process and for a flow.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from fewstep.types import Level

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


def to_data(output: Tensor, x: Tensor, level: Level, prediction_type: PredictionType) -> Tensor:
    """The data prediction x0 from a network's output at ``x``; shapes are equal.

    Raises:
        ValueError: for an unknown type, or epsilon where alpha = 0 (it does not determine x0).
    """
    check_prediction_type(prediction_type)
    alpha, sigma = level.alpha, level.sigma
    if prediction_type == "sample":
        return output
    if prediction_type == "v_prediction":
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)
    if prediction_type == "flow_prediction":
        return (x - sigma * output) / (alpha + sigma)
    if alpha == 0:
        raise ValueError(
            f"an epsilon prediction says nothing about the data at time {level.time:g}, where "
            "alpha = 0; zero terminal SNR needs a network trained with v_prediction"
        )
    return (x - sigma * output) / alpha


def check_prediction_type(prediction_type: str) -> None:
    """Raises ValueError for an unknown prediction type, and names the known ones."""
    if prediction_type not in get_args(PredictionType):
        known = ", ".join(get_args(PredictionType))
        raise ValueError(f"unknown prediction_type {prediction_type!r}; known: {known}")


def edm_input(x: Tensor, level: Level, dtype: torch.dtype, who: str) -> tuple[Tensor, Tensor]:
    """What a network of EDM's kind is asked at ``x``: x / alpha, and (n,) sigma / alpha.

    Raises:
        ValueError: at alpha = 0, where sigma / alpha is infinite.
    """
    if level.alpha == 0:
        raise ValueError(
            f"{who} has no noise level for alpha = 0 (time {level.time:g}); start at a finite "
            "sigma / alpha, with a VE or a discrete VP process"
        )
    rho = torch.full((len(x),), level.rho, dtype=dtype, device=x.device)
    return (x / level.alpha).to(dtype), rho
