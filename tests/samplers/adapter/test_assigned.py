"""What scripts assign to a scheduler is obeyed or refused, with what does it."""

import diffusers
import pytest
import torch
from helpers import CONFIGS, scheduler_classes

import fewstep

every_class = pytest.mark.parametrize("cls", scheduler_classes())
FLOWS = {
    "shift": {"shift": 3.0},
    "dynamic": {"use_dynamic_shifting": True},
    "terminal": {"shift": 2.0, "shift_terminal": 0.1},
    "karras": {"shift": 3.0, "use_karras_sigmas": True},
}
ENDS = ({"sigma_min": 0.0}, {"sigma_min": 0.2}, {"sigma_max": 0.7},
        {"sigma_max": 0.8, "sigma_min": 0.1})  # fmt: skip


@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("flow", FLOWS)
def test_ends_of_a_flow_are_those_of_diffusers(flow: str, ends: dict[str, float]) -> None:
    peer = diffusers.FlowMatchEulerDiscreteScheduler(**FLOWS[flow])
    ours = fewstep.Euler.from_config(peer.config, grid="diffusers")
    # Theirs are read off float32 levels.
    assert (ours.sigma_min, ours.sigma_max) == pytest.approx((peer.sigma_min, peer.sigma_max))
    for name, value in ends.items():
        setattr(peer, name, value)
        setattr(ours, name, value)
        assert getattr(ours, name) == value
    for n in (2, 5, 9):
        peer.set_timesteps(n, mu=1.1)
        # The class ends at 0 twice; ours are a little above once, since levels fall.
        for scheduler in (ours, ours.clone()):
            scheduler.set_timesteps(n, mu=1.1)
            torch.testing.assert_close(scheduler.sigmas, peer.sigmas, rtol=1e-5, atol=5e-6)
            assert torch.all(scheduler.sigmas[1:] < scheduler.sigmas[:-1])
    # A pipeline that sends its levels does not count between the ends, there and here.
    even = torch.linspace(1, 1 / 4, 4).tolist()
    peer.set_timesteps(sigmas=even, mu=1.1)
    ours.set_timesteps(sigmas=even, mu=1.1)
    torch.testing.assert_close(ours.sigmas, peer.sigmas)


@every_class
def test_ends_and_the_automatic_grid(cls) -> None:
    """It ends at 0 as it is, and says so where another end is wanted; strength is theirs."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours, plain = (cls.from_config(peer.config) for _ in range(2))
    for scheduler in (peer, ours):
        scheduler.sigma_min = 0.0
    for scheduler in (peer, ours, plain):
        scheduler.set_timesteps(6)
    assert torch.equal(ours.sigmas, plain.sigmas)
    with pytest.warns(UserWarning, match=r"sigma_min=0\.3 has no effect: .* pass sigmas="):
        plain.sigma_min = 0.3
    x = torch.ones(1, 2)
    for entry in (3, 5):
        ours.set_timesteps(6)
        ours.set_begin_index(entry)
        start = ours.scale_noise(x, ours.timesteps[entry : entry + 1], 0 * x)
        # Their last level is 0, and ours a little above.
        torch.testing.assert_close(start, (1 - peer.sigmas[entry]) * x, rtol=0, atol=5e-6)
        for t in ours.timesteps[entry:]:
            start = ours.step(torch.zeros_like(start), t, start)[0]
        assert start.isfinite().all()


def test_ends_that_are_none() -> None:
    flow = fewstep.UniPC(use_flow_sigmas=True)
    for wrong in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            flow.sigma_min = wrong
    config = diffusers.FlowMatchEulerDiscreteScheduler().config
    flow = fewstep.Euler.from_config(config, grid="diffusers")
    flow.sigma_max, flow.sigma_min = 0.2, 0.3
    with pytest.raises(ValueError, match="sigma_max must be above sigma_min"):
        flow.set_timesteps(4)
    config = diffusers.FlowMatchEulerDiscreteScheduler(use_exponential_sigmas=True).config
    flow = fewstep.Euler.from_config(config, grid="diffusers")
    flow.sigma_min = 0.0
    with pytest.raises(ValueError, match="set use_exponential_sigmas=False"):
        flow.set_timesteps(4)


@pytest.mark.parametrize("config", CONFIGS)
@every_class
def test_arguments_are_not_attributes(cls, config: str) -> None:
    """In diffusers such a line does nothing; what an argument names is read off the config."""
    scheduler = cls(**CONFIGS[config])
    for name, value in dict(scheduler.config).items():
        if name.startswith("_") or name in ("shift", "sigma_min", "sigma_max"):
            continue
        with pytest.raises(ValueError, match=rf"from_config\(scheduler\.config, {name}="):
            setattr(scheduler, name, value)
    if config != "flow":
        with pytest.raises(ValueError, match="sigma_min is an argument"):
            scheduler.sigma_min = 0.1
