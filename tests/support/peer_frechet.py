"""The Frechet distance of pytorch-fid."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor


def pytorch_fid_distance(*statistics: Tensor) -> float:
    """Its distance, with the ``disp`` that scipy 1.18 took from ``sqrtm`` put back.

    The call beneath is the installed scipy's; only the estimate of its error, which pytorch-fid
    throws away, is left out, so that a comparison of cost is not in our favour.
    """
    module = pytest.importorskip("pytorch_fid.fid_score")
    from scipy.linalg import sqrtm

    def with_disp(matrix: Any, disp: bool = True) -> Any:
        return sqrtm(matrix) if disp else (sqrtm(matrix), None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "linalg", SimpleNamespace(sqrtm=with_disp))
        arrays = (array.numpy() for array in statistics)
        return float(module.calculate_frechet_distance(*arrays))
