"""``step`` as the pipelines of diffusers call it, and what it says where it cannot do as asked."""

import diffusers
import pytest
import torch
from helpers import CONFIGS, scheduler_classes

import fewstep
from fewstep.samplers.adapter import schedulers

CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def ready(cls: type = schedulers.UniPC, n: int = 5, **options):
    scheduler = cls(**{**CONFIGS["vp-scaled"], **options})
    scheduler.set_timesteps(n)
    return scheduler


@every_class
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_second_of_the_pair_is_the_data_prediction(cls, kind: str) -> None:
    pair, record = ready(cls, prediction_type=kind), ready(cls, prediction_type=kind)
    x = y = X
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for t, s in zip(pair.timesteps, record.timesteps, strict=True):
        x, data = pair.step(torch.tanh(x), t, x, generators[0], return_dict=False)
        result = record.step(torch.tanh(y), s, y, generators[1])
        y = result.prev_sample
        assert torch.equal(x, y)
        assert torch.equal(data, result.pred_original_sample)


def test_the_pair_is_read_in_every_way() -> None:
    scheduler = ready()
    pair = scheduler.step(X, scheduler.timesteps[0], X, return_dict=False)
    previous, data = pair
    for seen in (pair[0], pair[-2], pair[:1][0], next(iter(pair))):
        assert seen is previous
    for seen in (pair[1], pair[-1], pair[1:][0], tuple(pair)[1], [*pair][1]):
        assert torch.equal(seen, data)
    assert len(pair) == 2
    assert torch.equal((pair + (1,))[1], data)  # noqa: RUF005
    assert "None" not in repr(pair)
    with pytest.raises(IndexError):
        pair[2]


def test_the_second_is_not_computed_unless_it_is_read(monkeypatch) -> None:
    scheduler = ready()
    calls = []
    monkeypatch.setattr(
        type(scheduler._executor), "data_prediction", lambda *_: calls.append(1) or X
    )
    pair = scheduler.step(X, scheduler.timesteps[0], X, return_dict=False)
    assert pair[0].shape == X.shape
    assert not calls
    assert pair[1] is X
    assert calls


def test_one_step_of_pixart_is_the_data_prediction() -> None:
    scheduler = ready(n=1)
    data = scheduler.step(X, scheduler.timesteps[0], X, return_dict=False)[1]
    row = scheduler.plan.evaluations[0]
    torch.testing.assert_close(data, (X - row.sigma * X) / row.alpha)


@every_class
@pytest.mark.parametrize("config", ["vp-scaled", "flow", "edm"])
def test_a_data_prediction_may_be_handed_over(cls, config: str) -> None:
    """Cosmos reads it off one call of step() and passes it to the next, after guidance."""
    runs = []
    for hand_over in (False, True):
        scheduler, x = cls(**CONFIGS[config]), X.double()
        scheduler.set_timesteps(6)
        generator = torch.Generator().manual_seed(1)
        for t in scheduler.timesteps:
            output = torch.tanh(x)
            if hand_over:
                index = scheduler.step_index or 0
                data = scheduler._executor.data_prediction(index, output, x)
                x = scheduler.step(
                    torch.full_like(x, torch.nan), t, x, generator, pred_original_sample=data
                ).prev_sample
            else:
                x = scheduler.step(output, t, x, generator).prev_sample
        runs.append(x)
    torch.testing.assert_close(*runs)


def test_eta_is_the_configs_or_refused() -> None:
    scheduler = ready(schedulers.DDIM, eta=0.5)
    times = iter(scheduler.timesteps)
    scheduler.step(X, next(times), X, eta=0.5)
    scheduler.step(X, next(times), X, eta=0.0)  # what pipelines pass when nobody said anything
    with pytest.raises(ValueError, match=r"call DDIM\.from_config\(config, eta=0\.3\)"):
        scheduler.step(X, next(times), X, eta=0.3)
    scheduler = ready()
    with pytest.raises(ValueError, match=r"UniPC has no eta, call DDIM\.from_config"):
        scheduler.step(X, scheduler.timesteps[0], X, eta=1.0)
    # An eta that the config of another class has carried along is nothing that UniPC does.
    carried = fewstep.UniPC.from_config(schedulers.DDIM(eta=1.0).config)
    carried.set_timesteps(5)
    with pytest.raises(ValueError, match="UniPC has no eta"):
        carried.step(X, carried.timesteps[0], X, eta=1.0)
    assert scheduler.step_index is None


def test_the_next_time_is_the_plans() -> None:
    """unCLIP and the priors of Kandinsky pass it; the last is None."""
    scheduler = ready(n=3)
    times = scheduler.timesteps
    with pytest.raises(ValueError, match=r"prev_timestep is entry 2 .* goes on to entry 1"):
        scheduler.step(X, times[0], X, prev_timestep=times[2])
    for i, t in enumerate(times):
        before = times[i + 1] if i < 2 else None
        scheduler.step(X, t, X, prev_timestep=before)
    assert scheduler.step_index == 3


def test_what_a_plan_cannot_do_names_the_pipeline() -> None:
    scheduler = ready()
    with pytest.raises(ValueError, match=r"time of its own \(LTX"):
        scheduler.step(X, scheduler.timesteps[0], X, per_token_timesteps=torch.ones(3))
    with pytest.raises(ValueError, match="latent consistency models"):
        scheduler.set_timesteps(4, original_inference_steps=None)
    with pytest.raises(ValueError, match="LatentUpscalePipeline passes"):
        scheduler.scale_model_input(scheduler.sigmas[0], scheduler.timesteps[0])
    with pytest.raises(TypeError, match=r"must be a torch\.Generator .*RePaint"):
        scheduler.step(X, scheduler.timesteps[0], X, X)
    scheduler.step(X, scheduler.timesteps[0], X)  # the refusals moved nothing
    assert scheduler.step_index == 1


def test_a_whole_step_compiles() -> None:
    scheduler, plain = ready(n=2), ready(n=2)
    scheduler.set_begin_index(0)
    step = torch.compile(scheduler.step, fullgraph=True, backend="eager")
    compiled = step(X, scheduler.timesteps[0], X, return_dict=False)
    for one, other in zip(
        compiled, plain.step(X, plain.timesteps[0], X, return_dict=False), strict=True
    ):
        assert torch.equal(one, other)


def test_a_step_that_fails_can_be_made_again() -> None:
    scheduler, plain = ready(), ready()
    t = scheduler.timesteps[0]
    with pytest.raises(RuntimeError):
        scheduler.step(torch.zeros(5, 7), t, X)
    again = scheduler.step(X, t, X).prev_sample
    assert torch.equal(again, plain.step(X, plain.timesteps[0], X).prev_sample)


@pytest.mark.parametrize("peer", [diffusers.EulerDiscreteScheduler, diffusers.DDIMScheduler])
def test_the_pair_is_that_of_diffusers(peer) -> None:
    theirs = peer(**CONFIGS["vp-scaled"], **({"clip_sample": False} if "DDIM" in str(peer) else {}))
    ours = fewstep.Euler.from_config(theirs.config, grid="diffusers")
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(5)
    sigma = float(ours.sigmas[0])
    x = X * theirs.init_noise_sigma
    scale = 1 if peer is diffusers.DDIMScheduler else (1 + sigma**2) ** 0.5
    theirs_pair = theirs.step(X, theirs.timesteps[0], x, return_dict=False)
    pair = ours.step(X, ours.timesteps[0], x / scale, return_dict=False)
    assert len(pair) == len(theirs_pair)
    torch.testing.assert_close(pair[1], theirs_pair[1], rtol=1e-4, atol=1e-3)
