"""``fewstep doctor`` names every extractor, and what each lacks."""

from pathlib import Path

import pytest
import torch
from command_line import call

from fewstep.eval.networks.families import EXTRACTORS
from fewstep.eval.networks.inception_weights import INCEPTION_SHA256, URL


def inception(capsys: pytest.CaptureFixture[str]) -> str:
    """The exit status is that of what is needed; the text is of the optional network."""
    assert call("doctor") == 0
    out = capsys.readouterr().out
    assert all(f"extractor {family}" in out for family in EXTRACTORS)
    assert all(name in out for name in ("accelerate", "pydantic"))
    (line,) = [line for line in out.splitlines() if "extractor inception" in line]
    return line


def test_extractors_are_looked_for_and_not_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pytorch_fid")
    monkeypatch.setenv("COLUMNS", "900")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEWSTEP_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert URL in inception(capsys)
    assert not (tmp_path / "hub").exists()
    (tmp_path / "other.pth").write_bytes(b"other")
    monkeypatch.setenv("FEWSTEP_INCEPTION", str(tmp_path / "other.pth"))
    assert f"not {INCEPTION_SHA256[:16]}" in inception(capsys)
