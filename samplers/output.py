"""What a scheduler's step returns."""

from diffusers.utils.outputs import BaseOutput
from torch import Tensor


class StepOutput(BaseOutput):
    """What ``step`` returns.

    Attributes:
        prev_sample: the sample to call the network with next.
        pred_original_sample: the data prediction of this call, for previews.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None
