"""What the training commands are made of."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewstep.models.minority import ordinal_classes
from fewstep.models.training.loop import Training
from fewstep.models.training.train_minority import noise_levels, rank_correlation, split


def test_split_is_stratified() -> None:
    labels = torch.arange(2000) // 1000
    classes = ordinal_classes(torch.rand(2000, generator=torch.manual_seed(0)), 100, labels)
    train, held = split(classes, labels, seed=0)
    assert len(held) == 100
    assert torch.cat([train, held]).sort().values.tolist() == list(range(2000))
    for label in range(2):
        assert (classes[held][labels[held] == label] // 10).bincount().tolist() == [5] * 10


def test_levels_of_training_are_uniform_times() -> None:
    rho = noise_levels(1000, torch.Generator().manual_seed(0)).sort().values
    assert 0.009 < rho[0] < 0.03
    assert 140 < rho[-1] < 153
    # Half the times of the linear VP process: rho = sqrt(exp(0.05 + 9.95 / 4) - 1) = 3.41.
    assert rho[500] == pytest.approx(3.41, rel=0.01)


def test_rank_correlation_counts_ties_as_means() -> None:
    a, tied = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1, 1, 2, 2])
    assert rank_correlation(a, a.exp()) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, tied) == pytest.approx(2 / 5**0.5)


def test_training_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling takes longer

    def loss(training: Training[nn.Conv2d]) -> Tensor:
        x = torch.randn(training.batch, 1, 4, 4, generator=training.generator)
        return (training.compiled(x) - x).square().mean()

    def run(*totals: int, folder: str) -> Training[nn.Conv2d]:
        for total in totals:
            training = Training(lambda: nn.Conv2d(1, 1, 3, padding=1), seed=0, batch=8, peak_rate=1)
            # The decay of the rate depends on the plan: it is the same in both runs.
            monkeypatch.setattr("fewstep.models.training.loop.learning_rate", lambda *_: 0.1)
            out = tmp_path / folder / "net.safetensors"
            training.train(total, loss, lambda _: {"figure": 1.0}, tmp_path / folder, out)
            assert out.exists()
            assert out.with_suffix(".json").exists()
        return training

    once, twice = run(64, folder="once"), run(24, 64, folder="twice")
    assert once.seen == twice.seen == 64
    for name in ("model", "ema"):
        for a, b in zip(
            getattr(once, name).parameters(), getattr(twice, name).parameters(), strict=True
        ):
            assert torch.equal(a, b)
