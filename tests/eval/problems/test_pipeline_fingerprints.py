"""The fingerprint of a pipeline tells its weights, its prompts and what its output means."""

import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
from saved_pipelines import PROMPTS, TEXT, changed, ddpm, loaded, prompt_file, saved

from fewstep.eval.common.sketches import agree
from fewstep.eval.problems import load_problem, pipelines

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # about the schedulers' configs


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return prompt_file(tmp_path)


@pytest.mark.parametrize(
    ("case", "part"),
    [("ddpm", "unet"), ("ldm", "vqvae"), ("dit", "vae"), ("sd", "unet"), ("sd", "text_encoder"),
     ("sdxl", "text_encoder_2"), ("sd3", "transformer")],
)  # fmt: skip
def test_one_weight_changes_the_fingerprint(
    case: str, part: str, prompts: Path, tmp_path: Path
) -> None:
    plain = loaded(case, prompts)
    other = changed(saved(case), part, tmp_path / "other")
    given = prompts if case in TEXT else None
    assert load_problem(str(other), prompts=given).fingerprint != plain.fingerprint
    same = shutil.copytree(saved(case), tmp_path / "same")
    assert load_problem(str(same), prompts=given).fingerprint == plain.fingerprint


def test_prompts_and_what_the_output_means_change_the_fingerprint(
    prompts: Path, tmp_path: Path
) -> None:
    known = {loaded("sd", prompts).fingerprint}
    for text in ("a b c\nd e\n", "d e\na b c\nf g h i\n", "a b c\nd e\nf g h j"):
        prompts.write_text(text)
        known.add(loaded("sd", prompts).fingerprint)
    pipe = ddpm()
    for kind in ("epsilon", "sample", "v_prediction"):
        pipe.scheduler = diffusers.DDIMScheduler(prediction_type=kind)
        pipe.save_pretrained(tmp_path / kind)
        known.add(load_problem(str(tmp_path / kind)).fingerprint)
    assert len(known) == 7


@pytest.mark.parametrize(
    ("case", "file", "setting"),
    [("sd", "tokenizer/tokenizer_config.json", {"model_max_length": 5}),
     ("sd", "tokenizer/tokenizer_config.json", {"pad_token": "b</w>"}),
     ("sdxl", "model_index.json", {"force_zeros_for_empty_prompt": False}),
     ("sd", "vae/config.json", {"scaling_factor": 0.5}),
     ("sd3", "vae/config.json", {"shift_factor": 0.5})],
)  # fmt: skip
def test_settings_that_change_samples_change_the_fingerprint(
    case: str, file: str, setting: dict[str, Any], prompts: Path, tmp_path: Path
) -> None:
    """How prompts are padded and cut, what no prompt is, and how latents are scaled."""
    folder = shutil.copytree(saved(case), tmp_path / "other")
    known = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**known, **setting}))
    other = load_problem(str(folder), prompts=prompts)
    assert other.fingerprint != loaded(case, prompts).fingerprint


def test_blank_lines_and_a_byte_order_mark_are_no_prompts(prompts: Path) -> None:
    plain = loaded("sd", prompts).fingerprint
    prompts.write_text("\ufeff" + "\n\n".join(PROMPTS), "utf-8")
    assert loaded("sd", prompts).fingerprint == plain


OWN = """from diffusers import UNet2DModel


class Own(UNet2DModel):
    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        return (0.5 * super().forward(sample, timestep, class_labels, return_dict=False)[0],)
"""


def test_code_of_ones_own_in_a_pipeline_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which versions of diffusers load such a class differs, so it is put in behind them."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which goes by whole seconds
    real, found = pipelines._loaded, []

    def loaded_with_own(*given: Any) -> Any:
        pipe = real(*given)
        pipe.unet.__class__ = importlib.import_module("own_unet").Own
        return pipe

    monkeypatch.setattr(pipelines, "_loaded", loaded_with_own)
    try:
        for text in (OWN, OWN.replace("0.5", "0.7"), f"# mine\n{OWN}"):
            (tmp_path / "own_unet.py").write_text(text)
            sys.modules.pop("own_unet", None)
            found.append(load_problem(str(saved("ddpm"))))
    finally:
        sys.modules.pop("own_unet", None)
    first, edited, commented = found
    assert first.identity["model"].keys() >= {"weights and settings", "code of own_unet"}
    assert first.fingerprint != edited.fingerprint
    assert not agree(first.answers, edited.answers)
    assert first.identity == commented.identity
