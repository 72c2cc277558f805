"""A plan as matrices does what the executor does, for samples at different steps."""

import pytest
import torch

from fewstep import BatchedPlan
from fewstep.samplers import SAMPLERS, build_plan
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.gaussian.warm import warm_plan
from fewstep.schedules import Flow, discrete_vp
from fewstep.schedules.prediction import Prediction

SPECS = [*SAMPLERS, "dpmpp:tau=1", "sa:evaluate=pece", "sa:mode=more_steps", "unipc:order=4"]
PROCESSES = {"vp": (discrete_vp(), "epsilon"), "flow": (Flow(), "flow_prediction")}
N, NFE = 3, 20


def network(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x)


def alone(plan: Plan, prediction: Prediction, x: torch.Tensor, noise: torch.Tensor) -> list:
    """States of one sample before each call and at the end; ``noise`` (nfe, draws, ...)."""
    executor, states = Executor(plan, prediction), [x]
    for e in range(plan.nfe):
        left = iter(noise[e])
        x = executor.step(e, network(x), x, lambda like, left=left: next(left)[None])
        states.append(x)
    return states


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", SPECS)
def test_each_sample_at_its_own_step(spec: str, process: str) -> None:
    """Three samples that enter one after the other, every second call of the server."""
    levels, kind = PROCESSES[process]
    plan, prediction = build_plan(spec, levels, NFE), Prediction(kind)
    batched = BatchedPlan(plan, prediction, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 1, 2, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(N, NFE, max(batched.draws, 1), 2, 3, generator=generator).double()
    expected = [alone(plan, prediction, x[i], noise[i]) for i in range(N)]
    state, index = batched.start(x[:, 0]), torch.tensor([0, -2, -4])
    for _ in range(NFE + 4):
        running = (index >= 0) & (index < NFE)
        i, at = running.nonzero()[:, 0], index[running]
        draws = noise[i, at] if batched.draws else None
        part = batched.step(state[i], at, network(state[i, 0]), draws)
        state = state.index_copy(0, i, part)
        index = index + 1
        for k in i.tolist():
            torch.testing.assert_close(
                state[k, 0], expected[k][int(index[k])][0], rtol=1e-9, atol=1e-9
            )
    assert (index >= NFE).all()


def test_one_graph_for_all_steps() -> None:
    """Coefficients are data here: compiling sees nothing to specialise on."""
    batched = BatchedPlan(build_plan("unipc", discrete_vp(), 6))
    graphs = []

    def count(module, _):
        graphs.append(module)
        return module.forward

    step = torch.compile(batched.step, fullgraph=True, backend=count)
    state = batched.start(torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
    for e in range(6):
        index = torch.tensor([e, 5 - e])
        plain = batched.step(state, index, network(state[:, 0]))
        state = step(state, index, network(state[:, 0]))
        torch.testing.assert_close(state, plain)
    assert len(graphs) == 1


def test_noise_that_is_needed_is_asked_for() -> None:
    batched = BatchedPlan(build_plan("ddim:eta=1", discrete_vp(), 4))
    state = batched.start(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"pass noise of shape \(n, 1, \.\.\.\)"):
        batched.step(state, torch.tensor([0, 1]), state[:, 0])


def test_plans_with_a_history_are_refused() -> None:
    with pytest.raises(ValueError, match="a Gaussian answers the first 2 rows"):
        BatchedPlan(warm_plan("dpmpp", discrete_vp("linear"), 4, 3.0, 2))
