"""Pipelines as problems: what they draw is what the pipeline draws with a scheduler of ours."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from saved_pipelines import BUILDERS, PROMPTS, TEXT, changed, loaded, prompt_file, saved
from torch import Tensor

import fewstep
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.problems import Problem, load_problem, rmse
from fewstep.eval.problems.guides import read_guidance
from fewstep.guidance import parse_guidance
from fewstep.models.ode import level_at
from fewstep.samplers import Plan

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # about the schedulers' configs
STEPS = 5


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return prompt_file(tmp_path)


def ours(
    problem: Problem, noise: Tensor, labels: Tensor | None, guidance: str, plan: Plan
) -> Tensor:
    """The images of a problem as pipelines show them, in [0, 1]."""
    with torch.no_grad():
        x = fewstep.sample(
            problem.denoiser, plan, plan.nfe, noise=noise, cond=labels,
            guidance=parse_guidance(guidance),
        )  # fmt: skip
    return (problem.images(x) / 2 + 0.5).clamp(0, 1)


def theirs(case: str, seed: int, labels: Tensor | None, scale: float) -> tuple[Tensor, Any]:
    """What a pipeline draws with UniPC from the noise of a generator."""
    pipe = BUILDERS[case]()
    pipe.scheduler = fewstep.UniPC.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    inputs: dict[str, Any] = {"batch_size": 3}
    if case == "dit":
        inputs = {"class_labels": labels.tolist(), "guidance_scale": scale}
    elif case in TEXT:
        inputs = {"prompt": [PROMPTS[i] for i in labels], "guidance_scale": scale}
    made = pipe(
        num_inference_steps=STEPS, generator=torch.Generator().manual_seed(seed),
        output_type="np", **inputs,
    )  # fmt: skip
    return torch.from_numpy(made.images).movedim(-1, 1), pipe.scheduler


@pytest.mark.parametrize(
    ("case", "scale"),
    [("ddpm", 1.0), ("ldm", 1.0), ("dit", 1.0), ("dit", 4.0), ("sd", 1.0), ("sd", 7.5),
     ("sdxl", 7.5), ("sd3", 7.5)],
)  # fmt: skip
def test_samples_are_those_of_the_pipeline(case: str, scale: float, prompts: Path) -> None:
    problem = loaded(case, prompts)
    labels = torch.tensor([2, 0, 1]) if problem.num_classes else None
    expected, scheduler = theirs(case, 4, labels, scale)
    assert scheduler.process.identity() == problem.process.identity()
    noise = torch.randn(3, *problem.shape, generator=torch.Generator().manual_seed(4))
    made = ours(problem, noise, labels, f"cfg:{scale}", scheduler.plan)
    assert made.shape == expected.shape == (3, *problem.image_shape)
    assert ((expected > 0.01) & (expected < 0.99)).float().mean() > 0.5  # and not all clipped
    # Guidance acts on x0 here and on the network's output there, and batches are other ones: the
    # same numbers up to float32's rounding, which CFG amplifies. 1.3e-6 was measured at most.
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["dit", "sd", "sdxl", "sd3"])
def test_labels_count_and_the_last_one_is_the_null_condition(case: str, prompts: Path) -> None:
    problem = loaded(case, prompts)
    assert problem.num_classes == (1000 if case == "dit" else len(PROMPTS))
    x, level = problem.initial_noise(2), problem.start_level

    def ask(cond: Tensor | None) -> Tensor:
        with torch.no_grad():
            return problem.denoiser(x, level, cond)

    null = problem.denoiser.null_cond(torch.tensor([0, 1]))
    assert null.tolist() == [problem.num_classes] * 2
    # Batched products differ in the last bits of numbers of order one.
    torch.testing.assert_close(ask(null), ask(None), rtol=0, atol=1e-5)
    for other in (torch.tensor([1, 0]), null):
        assert (ask(torch.tensor([0, 1])) - ask(other)).abs().max() > 1e-4


def test_a_class_conditional_unet_takes_labels(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=(8, 4), layers_per_block=1, block_out_channels=(8,), norm_num_groups=2,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
            attention_head_dim=4, num_class_embeds=7,
        )  # fmt: skip
    diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    problem = load_problem(str(tmp_path))
    assert (problem.num_classes, problem.shape) == (7, (3, 8, 4))
    assert read_guidance("icg:1.4", problem).expression is not None
    with pytest.raises(
        ValueError, match=r"'cfg:2' does not fit .* class_labels should be provided"
    ):
        read_guidance("cfg:2", problem)  # nobody told which class means none


def test_decoding_is_bounded_and_each_image_depends_on_its_latent_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fewstep.eval.problems.decoding.PIXELS_AT_ONCE", 3 * 16**2)
    problem = load_problem(str(saved("dit")))
    sizes = []
    plain = diffusers.AutoencoderKL.decode

    def decode(self: Any, z: Tensor, **kwargs: Any) -> Any:
        sizes.append(len(z))
        return plain(self, z, **kwargs)

    monkeypatch.setattr(diffusers.AutoencoderKL, "decode", decode)
    x = problem.initial_noise(7)
    images = problem.images(x)
    assert sizes == [3, 3, 3]
    assert images.shape == (7, 3, 16, 16)
    assert torch.equal(problem.images(x[4:5]), images[4:5])
    assert torch.equal(problem.images(x), images)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_network_computes_in_the_dtype_that_is_asked_for(dtype: str, prompts: Path) -> None:
    problem, whole = (loaded("sd", prompts, dtype=name) for name in (dtype, "float32"))
    assert problem.denoiser.network.dtype == getattr(torch, dtype)
    assert problem.dtype == torch.float32
    x, labels = problem.initial_noise(3), problem.labels(3)
    level = level_at(problem.process, 1.0)
    with torch.no_grad():
        made, exact = (one.denoiser(x, level, labels) for one in (problem, whole))
    assert made.dtype == torch.float32
    # bfloat16 has 8 bits, so 2^-8 of numbers up to 4, through a few layers.
    assert 0 < (made - exact).abs().max() < 0.1
    assert problem.images(x).dtype == torch.float32
    torch.testing.assert_close(problem.images(x), whole.images(x))  # decoded in float32 by both
    assert problem.fingerprint != whole.fingerprint


@pytest.mark.parametrize("case", ["ddpm", "sd"])
def test_generation_and_guidance(case: str, prompts: Path, tmp_path: Path) -> None:
    problem = loaded(case, prompts)
    guidance = "none" if case == "ddpm" else "cfg:3"
    assert (read_guidance(guidance, problem).expression is None) == (case == "ddpm")
    run = Generation(problem, "unipc", 2, range(5), guidance, unit_size=2)
    assert generate_images(run, tmp_path / "run").made == 3
    assert verify(tmp_path / "run").ok
    other = changed(saved(case), "unet", tmp_path / "other")
    other = load_problem(str(other), prompts=prompts if case == "sd" else None)
    with pytest.raises(ValueError, match="fingerprint"):
        generate_images(
            Generation(other, "unipc", 2, range(5), guidance, unit_size=2), tmp_path / "run"
        )


@pytest.mark.slow
def test_references_are_solved_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In latent space; the name of a problem is a path, and that of a cached file must not be."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    problem = load_problem(str(saved("ddpm")))
    noise = problem.initial_noise(2, dtype=torch.float64)
    reference = problem.reference(noise)
    assert [path.suffix for path in (tmp_path / "references").iterdir()] == [".safetensors"]
    errors = []
    for n in (20, 40):
        with torch.no_grad():
            x = fewstep.sample(problem.denoiser, "heun", n, noise=noise.float())
        errors.append(rmse(x, reference))
    # Second order, halving the steps: four times less in the limit, and at least half here.
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.05
