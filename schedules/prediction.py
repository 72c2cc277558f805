"""From what a network predicts to data or noise: both are linear in the sample and the output.

======================= =========================== =======================
prediction              data m =                    noise eps =
======================= =========================== =======================
epsilon                 (x - sigma o) / alpha       o
sample                  o                           (x - alpha o) / sigma
v_prediction            alpha x - sigma o           sigma x + alpha o
flow_prediction         x - sigma o                 x + alpha o
edm                     c_skip x + c_out o          (x - alpha m) / sigma
======================= =========================== =======================

The v row needs alpha^2 + sigma^2 = 1 (arXiv:2202.00512, appendix D), the flow row alpha + sigma
= 1. EDM's raw network output takes c_skip = s^2 / (sigma^2 + s^2) and c_out = sigma s /
sqrt(sigma^2 + s^2) (arXiv:2206.00364, table 1), with the other sign of c_out for its v form.
"""

from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["data", "noise"]
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")


@dataclass(frozen=True)
class Prediction:
    """What the network's output means.

    Args:
        kind: one of ``PREDICTIONS``.
        sigma_data: EDM's data deviation if the output is its raw network's, else None.

    Raises:
        ValueError: for an unknown kind.
    """

    kind: str = "sample"
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in PREDICTIONS:
            raise ValueError(
                f"prediction_type must be one of {', '.join(PREDICTIONS)}; got {self.kind!r}"
            )

    def coefficients(self, alpha: Any, sigma: Any, form: Form) -> tuple[Any, Any]:
        """(p, q) with data or noise = p x + q output; floats, or tensors for tensor levels.

        Raises:
            ValueError: for an epsilon prediction at alpha = 0, which holds no data.
        """
        if self.sigma_data is not None:
            p, q = self._edm(sigma)
        elif self.kind == "epsilon":
            if form == "noise":
                return 0.0, 1.0
            if alpha == 0:
                raise ValueError(
                    "an epsilon prediction says nothing of the data at alpha = 0 (zero terminal "
                    "SNR, or a flow's start): such models are trained with "
                    "prediction_type='v_prediction' or 'flow_prediction'"
                )
            return 1 / alpha, -sigma / alpha
        elif self.kind == "v_prediction":
            return (alpha, -sigma) if form == "data" else (sigma, alpha)
        elif self.kind == "flow_prediction":
            return (1.0, -sigma) if form == "data" else (1.0, alpha)
        else:
            p, q = 0.0, 1.0
        return (p, q) if form == "data" else ((1 - alpha * p) / sigma, -alpha * q / sigma)

    def _edm(self, sigma: Any) -> tuple[Any, Any]:
        s = float(self.sigma_data or 0.0)
        total = sigma**2 + s**2
        c_out = sigma * s / total**0.5
        return s**2 / total, c_out if self.kind == "epsilon" else -c_out
