"""The executor: one evaluation of a plan at a time, on tensors.

Rules: never write to a tensor that was handed in or handed out; allocate the returned sample and
nothing else (history, base and scratch are recycled while gradients are off); compute in float32 at
least, and keep that state between steps when samples are handed around in half precision; read
nothing from the device.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.samplers.core.ops import Evaluation
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.program import Action, Key, Step, compile_plan
from fewstep.schedules.prediction import Prediction

Draw = Callable[[Tensor], Tensor]  # fresh unit noise of the shape, device and dtype of a tensor
Clamp = Callable[[Tensor], Tensor]  # thresholding of a data prediction


class Executor:
    """Runs one trajectory of a plan.

    Args:
        plan: the table.
        prediction: what the outputs handed to :meth:`step` mean.
        rows: the table with tensors for numbers, to differentiate by them.
        threshold: applied to each data prediction.
    """

    def __init__(
        self,
        plan: Plan,
        prediction: Prediction | None = None,
        *,
        rows: Sequence[Evaluation] | None = None,
        threshold: Clamp | None = None,
    ) -> None:
        prediction = prediction or Prediction("sample")
        self.plan = plan
        self.threshold = threshold
        plain = rows is not None or threshold is not None
        self.draws = [sum(op.nu != 0 for op in row.ops) for row in plan.evaluations]
        self.steps = compile_plan(plan, prediction, rows=rows, fold=not plain)
        self.reset()

    def reset(self) -> None:
        """Forgets the trajectory: history, base, master copy and scratch memory."""
        self._held: dict[Key, Tensor] = {}
        self._spare: list[Tensor] = []
        self._master: Tensor | None = None  # the state behind the sample last returned
        self._returned: Tensor | None = None
        self._version = 0

    def step(self, index: int, output: Tensor, sample: Tensor, draw: Draw) -> Tensor:
        """Consumes the output of evaluation ``index`` at ``sample``; returns the next sample.

        Args:
            index: number of the evaluation.
            output: the network's output, of the shape of ``sample``.
            sample: what the network was called with (before any input scaling).
            draw: called once for each op that adds noise.

        Returns:
            The next sample, of the dtype of ``output``.
        """
        step = self.steps[index]
        x = self._resume(index, sample)
        held, recycle = self._held, not torch.is_grad_enabled()
        if step.convert is not None:
            held[step.entry] = self._convert(step, index, output, x, recycle)
        held["x"], held["o"] = x, output
        for i, action in enumerate(step.actions):
            self._run(action, x, draw, recycle, fresh=i == step.last)
        result = held.pop("x")
        del held["o"]
        for entry in step.free:
            tensor = held.pop(entry, None)
            if tensor is not None and recycle:
                self._spare.append(tensor)
        if index + 1 == len(self.steps):
            self.reset()
            return result.to(output.dtype)
        return self._hand_out(step, result, output.dtype)

    def select(self, sample: Tensor, ancestors: Tensor) -> Tensor:
        """Sample ``ancestors[i]`` goes on in slot i, with everything that is kept of its past.

        Args:
            sample: what the last :meth:`step` returned, edited or not.
            ancestors: (n,) integers on its device, repeats allowed.

        Returns:
            The sample to go on with.
        """
        chosen = sample.index_select(0, ancestors)
        self._held = {key: t.index_select(0, ancestors) for key, t in self._held.items()}
        if self._returned is not None and self._master is not None:
            same = self._returned is sample and _version(sample) == self._version
            shared = same and self._master is sample
            self._master = chosen if shared else self._master.index_select(0, ancestors)
            self._returned = chosen if same else self._master
            self._version = _version(self._returned)
        return chosen

    def data_prediction(self, index: int, output: Tensor, sample: Tensor) -> Tensor:
        """The data prediction of evaluation ``index``, for previews."""
        x = sample.to(_state_dtype(sample))
        return self._data(self.steps[index], output, x).to(output.dtype)

    def output_of(self, index: int, data: Tensor, sample: Tensor) -> Tensor:
        """The network's output at ``sample`` that means a data prediction."""
        p, q = self.steps[index].data
        x = sample.to(_state_dtype(sample))
        output: Tensor = (data - x * p) / q
        return output.to(data.dtype)

    def _data(self, step: Step, output: Tensor, x: Tensor) -> Tensor:
        p, q = step.data
        data = x * p + output * q
        return self.threshold(data) if self.threshold else data

    def _resume(self, index: int, sample: Tensor) -> Tensor:
        """The state behind ``sample``; an edit by the caller is carried over to a pending base."""
        if self._returned is None:
            return sample.to(_state_dtype(sample))
        if sample is self._returned and _version(sample) == self._version:
            assert self._master is not None
            return self._master
        before = self.steps[index - 1] if index else None
        if before is None or not before.base_pending:
            return sample.to(_state_dtype(sample))
        if before.rebuild is not None:
            last = _combine([(self._held[key], c) for key, c in before.rebuild])
        else:
            assert self._master is not None
            last = self._master
        change = sample.to(last.dtype) - last.to(sample.dtype).to(last.dtype)
        self._held["base"] = self._held["base"] + change
        return last + change

    def _hand_out(self, step: Step, result: Tensor, dtype: torch.dtype) -> Tensor:
        returned = result.to(dtype)
        copy = returned is result and step.base_pending and step.rebuild is None
        self._master = result.clone() if copy else result
        self._returned, self._version = returned, _version(returned)
        return returned

    def _convert(self, step: Step, index: int, output: Tensor, x: Tensor, recycle: bool) -> Tensor:
        if self.threshold is not None:
            data, row = self._data(step, output, x), self.plan.evaluations[index]
            return data if row.form == "data" else (x - row.alpha * data) / row.sigma
        registers = {"x": x, "o": output}
        terms = [(registers[str(key)], c) for key, c in step.convert or ()]
        return _combine(terms, self._buffer(x) if recycle else None, x.dtype)

    def _run(self, action: Action, like: Tensor, draw: Draw, recycle: bool, fresh: bool) -> None:
        held = self._held
        terms = [(held[key], c) for key, c in action.terms]
        out = self._buffer(like) if recycle and not fresh else None
        result = _combine(terms, out, like.dtype) if terms else torch.zeros_like(like)
        if not (isinstance(action.nu, float) and action.nu == 0.0):
            result = _add(result, draw(like), action.nu)
        old = held.get(action.dest)
        if recycle and old is not None and old is not like:
            self._spare.append(old)
        held[action.dest] = result

    def _buffer(self, like: Tensor) -> Tensor:
        return self._spare.pop() if self._spare else torch.empty_like(like)


def _state_dtype(sample: Tensor) -> torch.dtype:
    return torch.promote_types(sample.dtype, torch.float32)


def _version(tensor: Tensor) -> int:
    """torch's count of in-place writes; inference tensors have none, and a trace cannot see it."""
    if torch.compiler.is_compiling() or tensor.is_inference():
        return 0
    return tensor._version


def _add(tensor: Tensor, other: Tensor, c: Any) -> Tensor:
    """tensor + c other, in place unless c is a tensor."""
    return tensor + other * c if isinstance(c, Tensor) else tensor.add_(other, alpha=c)


def _combine(
    terms: Sequence[tuple[Tensor, Any]], out: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """sum c_i t_i in as few passes as torch has: k - 1 if the first coefficient is 1, else k."""
    if any(isinstance(c, Tensor) for _, c in terms):
        return torch.stack([tensor * c for tensor, c in terms]).sum(0)
    (first, c), *rest = terms
    if dtype is not None and first.dtype != dtype and (not rest or c != 1.0):
        first = first.to(dtype)
    if not rest:
        return torch.mul(first, c, out=out)
    if c == 1.0:
        (second, d), *rest = rest
        if first.dtype == second.dtype or dtype is None or second.dtype == dtype:
            total = torch.add(first, second, alpha=d, out=out)
        else:
            total = torch.add(first.to(dtype), second, alpha=d, out=out)
    else:
        total = torch.mul(first, c, out=out)
    for tensor, d in rest:
        total.add_(tensor, alpha=d)
    return total
