"""What a server relies on: threads, batches put together at will, samples of any shape."""

import threading
import warnings
from queue import SimpleQueue

import pytest
import torch
from helpers import drive, scheduler_classes

from fewstep.samplers.adapter import schedulers

CLASSES = scheduler_classes()
every_class = pytest.mark.parametrize("cls", CLASSES)
# Options that make a class draw noise which draws none by default.
NOISY = {"eta": 1.0, "tau": 1.0, "churn": 40.0}
N = 12
SERVED = {
    "ddim": lambda: schedulers.DDIM(eta=1.0),
    "edm": lambda: schedulers.EDMStochastic(),
    "sde": lambda: schedulers.DPMSolverPP(tau=1.0),
    "unipc": lambda: schedulers.UniPC(),
}


def draws(scheduler, n: int) -> bool:
    scheduler.set_timesteps(n)
    return any(op.nu for row in scheduler.plan.evaluations for op in row.ops)


def stochastic() -> list:
    """(class, options, calls) of every class that can draw; Restart does from 18 calls on."""
    found = []
    for cls in CLASSES:
        options = {key: value for key, value in NOISY.items() if hasattr(cls().config, key)}
        tries = [({}, N), (options, N), ({}, 2 * N)]
        with warnings.catch_warnings(action="ignore"):
            found += [(cls, *case) for case in tries if draws(cls(**case[0]), case[1])][:1]
    return found


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generators(seed)[0])


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Each number on its own, with operations that round alike wherever it lies in memory."""
    return x * 0.7 - 0.1 * x * x.abs().clamp(max=2)


@pytest.fixture
def shared_network():
    """A small convolutional network, as one model serves all threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layers = [
        torch.nn.Conv2d(2, 8, 3, padding=1),
        torch.nn.SiLU(),
        torch.nn.Conv2d(8, 2, 3, padding=1),
    ]
    model = torch.nn.Sequential(*layers)
    filler = generators(0)[0]
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.2, 0.2, generator=filler)
    yield lambda x, t: model(x)
    torch.set_num_threads(threads)


def image(scheduler, model, seed: int, n: int = 5) -> torch.Tensor:
    with torch.no_grad():  # of this thread: grad mode is not shared
        generator = generators(seed)[0]
        start = torch.randn(1, 2, 8, 8, generator=generator)
        return drive(scheduler, start, n, model, generator=generator)


@pytest.mark.parametrize("make", SERVED.values(), ids=SERVED)
def test_eight_threads_share_a_network(make, shared_network) -> None:
    """Bit for bit what one thread makes, whichever thread takes which request, at mixed lengths."""
    requests: SimpleQueue = SimpleQueue()
    for request in (*range(200), *[None] * 8):  # None ends a worker
        requests.put(request)
    origin, results, errors = make(), {}, []
    alone = [image(origin, shared_network, seed, 4 + seed % 3) for seed in range(200)]
    barrier = threading.Barrier(8)

    def work() -> None:
        try:
            scheduler = origin.clone()
            barrier.wait(timeout=30)
            for seed in iter(requests.get, None):
                results[seed] = image(scheduler, shared_network, seed, 4 + seed % 3)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert sorted(results) == list(range(200))
    assert all(torch.equal(results[seed], expected) for seed, expected in enumerate(alone))


@every_class
def test_two_trajectories_in_one_scheduler_are_refused(cls) -> None:
    """Whoever comes second: from its first entry on, or with an entry that was taken before."""
    scheduler, x = cls(), noise(1, 3, 4, 4)
    scheduler.set_timesteps(6)
    first, second = iter(scheduler.timesteps), iter(scheduler.timesteps)
    scheduler.step(x, next(first), x)
    with pytest.raises(ValueError, match="got entry 0 of timesteps, expected entry 1"):
        scheduler.step(x, next(second), x)
    scheduler.step(x, next(first), x)  # the refusal moved nothing
    with pytest.raises(ValueError, match=r"entry 1 .* expected entry 2: .* one scheduler for each"):
        scheduler.step(x, next(second), x)
    assert scheduler.step_index == 2


@pytest.mark.parametrize("times", [list, lambda t: [float(v) for v in t]], ids=["views", "floats"])
@pytest.mark.parametrize("trial", range(12))
def test_a_scheduler_that_threads_share_is_never_wrong_without_a_word(trial: int, times) -> None:
    """Each run is right to the bit or ends with the line that says why: a token for each step."""
    shared, barrier = schedulers.UniPC(), threading.Barrier(3)
    results: dict[int, tuple[int, torch.Tensor]] = {}
    errors: list[Exception] = []

    def work(n: int) -> None:
        x = noise(1, 4, seed=n) * shared.init_noise_sigma
        barrier.wait(timeout=30)
        try:
            shared.set_timesteps(n)
            own = times(shared.timesteps)  # of whoever called set_timesteps last
            for t in own:
                threading.Event().wait(1e-4 * ((trial * 7 + n) % 5))  # lets another thread in
                x = shared.step(network(x, t), t, x, return_dict=False)[0]
            results[n] = len(own), x
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in (6, 7, 8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) + len(errors) == 3
    for n, (calls, x) in results.items():
        assert torch.equal(x, drive(schedulers.UniPC(), noise(1, 4, seed=n), calls, network))
    for error in errors:
        assert type(error) is ValueError
        assert "clone()" in str(error) or "steps are done" in str(error)


@every_class
def test_set_timesteps_in_mid_run_forgets_it(cls) -> None:
    scheduler, x = cls(), noise(2, 3, 4, 4)
    fresh = drive(cls(), x, 6, network, generator=generators(1)[0])
    scheduler.set_timesteps(9)
    scheduler.set_begin_index(2)
    for t in scheduler.timesteps[2:6]:
        scheduler.step(x, t, x)
    assert torch.equal(drive(scheduler, x, 6, network, generator=generators(1)[0]), fresh)
    assert scheduler.begin_index is None


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("shape", [(3, 4, 4), (5,), (2, 3, 3)], ids=str)
@pytest.mark.parametrize(
    ("cls", "options", "n"), stochastic(), ids=lambda v: getattr(v, "__name__", "")
)
def test_a_sample_is_its_own_whatever_the_batch(cls, options, n: int, shape, kind) -> None:
    scheduler, seeds = cls(**options), (3, 14, 15, 92, 65)
    starts = {seed: noise(1, *shape, seed=seed) for seed in seeds}

    def batch(*chosen: int) -> dict[int, torch.Tensor]:
        x = torch.cat([starts[seed] for seed in chosen])
        result = drive(scheduler, x, n, network, generator=kind(generators(*chosen)))
        return dict(zip(chosen, result, strict=True))

    with torch.no_grad():
        whole = batch(*seeds)
        for chosen in ((3,), (92,), (65, 3), (15, 14, 92), seeds[::-1]):
            for seed, result in batch(*chosen).items():
                assert torch.equal(result, whole[seed])
        other = drive(scheduler, starts[3], n, network, generator=kind(generators(4)))
    assert not torch.equal(other[0], whole[3])


@pytest.mark.parametrize(
    "shape", [(60,), (12, 5), (3, 4, 5), (3, 5, 2, 2), (2, 3, 2, 5, 1)], ids=str
)
@pytest.mark.parametrize("thresholding", [False, True])
@every_class
def test_samples_of_any_rank(cls, shape, thresholding: bool) -> None:
    """Numbers, vectors, audio, images, video: the run of the same numbers as rows of a table."""
    scheduler = cls(thresholding=thresholding)
    start = noise(*shape)
    results = []
    with torch.no_grad():
        for x in (start, start.reshape(len(start), -1)):
            results.append(drive(scheduler, x, N, network, generator=generators(2)[0]))
    assert results[0].shape == shape
    assert torch.equal(results[0].reshape(len(start), -1), results[1])
    assert results[0].isfinite().all()


@every_class
def test_previews_and_training_noise_of_any_rank(cls) -> None:
    scheduler = cls()
    for shape in ((4,), (4, 5), (4, 2, 5), (4, 2, 3, 5), (4, 2, 2, 3, 5)):
        scheduler.set_timesteps(3)
        x = noise(*shape)
        assert scheduler.step(x, scheduler.timesteps[0], x).pred_original_sample.shape == shape
        added = scheduler.add_noise(x, x.flip(0), torch.tensor([1, 400, 700, 999]))
        rows = scheduler.add_noise(x[2:3], x.flip(0)[2:3], torch.tensor([700]))
        assert torch.equal(added[2:3], rows)
