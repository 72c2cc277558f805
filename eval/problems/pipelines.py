"""Pipelines of diffusers as benchmark problems.

The pipeline is loaded as diffusers does it and then taken apart: its network becomes a denoiser,
its scheduler's config says which noise process and prediction that has, its autoencoder decodes.
Its scheduler, its step loop and its guidance are not used.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewstep.eval.problems.decoding import decoder
from fewstep.eval.problems.fingerprints import (
    WEIGHTS,
    fingerprint_of,
    model_fingerprint,
    own_code,
)
from fewstep.eval.problems.problem import Problem
from fewstep.eval.problems.prompts import PromptDenoiser, conditions_of, read_prompts
from fewstep.guidance.pipelines.levels import Training, training_of
from fewstep.models.adapters import DiffusersDenoiser
from fewstep.schedules.diffusers.config import is_continuous_edm

INDEX = "model_index.json"
OWN = "write it as a function that returns a Problem, and name it module:attribute"
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


@dataclass(frozen=True)
class Kind:
    """What a class of pipelines is made of.

    Attributes:
        network: name of the component that denoises.
        decoder: of the one that makes images of latents; None for pixels.
        text: whether prompts are its condition.
    """

    network: str
    decoder: str | None = None
    text: bool = False


KINDS = {
    "DDPMPipeline": Kind("unet"),
    "DDIMPipeline": Kind("unet"),
    "LDMPipeline": Kind("unet", "vqvae"),
    "DiTPipeline": Kind("transformer", "vae"),
    "StableDiffusionPipeline": Kind("unet", "vae", text=True),
    "StableDiffusionXLPipeline": Kind("unet", "vae", text=True),
    "StableDiffusion3Pipeline": Kind("transformer", "vae", text=True),
}


class LatentDenoiser(DiffusersDenoiser):
    """One whose samples are no pixels, which some guidance has to know."""

    latent = True


def pipeline_problem(
    name: str, device: str, prompts: Path | None = None, dtype: torch.dtype = torch.float32
) -> Problem:
    """A pipeline as a problem.

    Args:
        name: a folder that ``save_pretrained`` wrote, or an id of the hub.
        device: of all networks.
        prompts: a text file, one prompt a line, for pipelines that take text, and for no others.
        dtype: of the denoising network and the text encoders.

    Raises:
        ValueError: if it cannot be had, or nothing here can be made of it, in one line.
        FileNotFoundError: if there are no prompts at that path.
    """
    kind, texts = _checked(name, prompts)
    pipe = _loaded(name, kind, dtype)
    network = getattr(pipe, kind.network)
    training = _training(name, pipe)
    shape = _shape(name, kind, network)
    used = [kind.network, *([kind.decoder] if kind.decoder else [])]
    used += [part for part in pipe.components if kind.text and part.startswith("text_encoder")]
    modules: dict[str, nn.Module] = {
        part: getattr(pipe, part) for part in used if getattr(pipe, part) is not None
    }
    for module in modules.values():
        _aligned(module.requires_grad_(False).eval())
    # What SDXL takes for no prompt is a setting of the pipeline itself.
    null = f"null zeros: {pipe.config.get('force_zeros_for_empty_prompt')}"
    written = [type(pipe).__name__, training.prediction_type, null, repr(_tokens(pipe, texts))]
    weights = model_fingerprint(modules, *written, *texts)
    code = own_code(*modules.values())  # of a folder that brings its own classes
    parts = {WEIGHTS: weights, **code}
    fingerprint = fingerprint_of(parts) if code else weights
    for module in modules.values():
        module.to(device)
    denoiser = _denoiser(pipe, kind, training, texts, device)
    decode = None if kind.decoder is None else decoder(getattr(pipe, kind.decoder), shape)
    return Problem(
        name, denoiser, shape, fingerprint, denoiser.num_classes or 0, exact=False, device=device,
        decode=decode, parts=parts,
    )  # fmt: skip


def _aligned(module: nn.Module) -> None:
    """Copies weights to where torch puts its own tensors, one at a time.

    Those of a safetensors file start anywhere in it, which can decide what kernels run. The same
    weights in a file of another order would then give other last bits.
    """
    for weights in (*module.parameters(), *module.buffers()):
        weights.data = weights.data.clone(memory_format=torch.preserve_format)


def _checked(name: str, prompts: Path | None) -> tuple[Kind, list[str]]:
    """The kind of a pipeline and its prompts, before its weights are read."""
    from diffusers import DiffusionPipeline

    if Path(name).is_dir() and not (Path(name) / INDEX).is_file():
        raise ValueError(
            f"{name} is no pipeline, it holds no {INDEX}; give a folder that "
            "pipe.save_pretrained(folder) wrote"
        )
    try:
        index: Any = DiffusionPipeline.load_config(name)
    except Exception as error:
        raise _unavailable(name, error) from error
    found = str(index.get("_class_name"))
    if found not in KINDS:
        raise ValueError(
            f"{name} is a {found}, which fewstep cannot take apart; it knows {', '.join(KINDS)}. "
            f"For another, {OWN}"
        )
    kind = KINDS[found]
    if prompts is None and kind.text:
        raise ValueError(
            f"{name} is a {found}, which takes text: give prompts, a text file with one a line "
            "(--prompts FILE)"
        )
    if prompts is not None and not kind.text:
        raise ValueError(f"{name} is a {found}, which takes no text; leave the prompts out")
    return kind, [] if prompts is None else read_prompts(prompts)


def _unavailable(name: str, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if Path(name).is_dir():
        return ValueError(f"the pipeline in {name} cannot be read ({reason}); save it again")
    return ValueError(
        f"{name!r} is no folder here and cannot be had from the hub ({reason}); give a local "
        "folder that pipe.save_pretrained(folder) wrote, or go online"
    )


def _loaded(name: str, kind: Kind, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    index = DiffusionPipeline.load_config(name)
    without: dict[str, Any] = {part: None for part in UNUSED if part in index}
    if "safety_checker" in without:
        without["requires_safety_checker"] = False  # diffusers warns otherwise
    dtypes = {"default": dtype, kind.decoder or "vae": torch.float32}
    try:
        with _bars_on_terminals(kind):
            loading: Any = DiffusionPipeline.from_pretrained
            return loading(name, **{_dtype_keyword(loading): dtypes}, **without)
    except Exception as error:
        raise _unavailable(name, error) from error


def _dtype_keyword(loading: Any) -> str:
    """What this diffusers calls the dtype to load in: it ignores the other name, or warns of it."""
    return "dtype" if " dtype (`" in (loading.__doc__ or " dtype (`") else "torch_dtype"


@contextmanager
def _bars_on_terminals(kind: Kind) -> Iterator[None]:
    """Within, the libraries show how far they are on a terminal, and not in a log."""
    libraries = ("diffusers", "transformers") if kind.text else ("diffusers",)
    logs: list[Any] = [importlib.import_module(f"{name}.utils.logging") for name in libraries]
    logs = [] if sys.stderr.isatty() else [log for log in logs if log.is_progress_bar_enabled()]
    for log in logs:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in logs:
            log.enable_progress_bar()


def _training(name: str, pipe: Any) -> Training:
    config = pipe.scheduler.config
    try:
        if config.get("sigma_data") is not None or is_continuous_edm(config):
            raise ValueError("its scheduler scales the network's input and output, as EDM's do")
        return training_of(pipe.scheduler)
    except ValueError as error:
        raise ValueError(f"cannot take {name} for a problem: {error}. If you can, {OWN}") from error


def _shape(name: str, kind: Kind, network: Any) -> tuple[int, ...]:
    """Of one sample, at the size that the network was trained for."""
    config = network.config
    size, width = config.get("sample_size"), int(config.in_channels)
    reason = None
    if size is None:
        reason = "its network does not tell its sample_size"
    elif kind.text and config.get("time_cond_proj_dim") is not None:
        reason = "its network is told the guidance scale (a distilled model)"
    elif config.get("out_channels") not in (None, width, 2 * width):
        reason = f"its network sees {width} channels and predicts {config.out_channels}"
    elif config.get("class_embed_type") is not None:
        reason = f"its network takes class embeddings of type {config.class_embed_type!r}"
    if reason is not None:
        raise ValueError(f"cannot take {name} for a problem: {reason}; {OWN}")
    height, length = (size, size) if isinstance(size, int) else size
    return (width, int(height), int(length))


def _denoiser(
    pipe: Any, kind: Kind, training: Training, texts: list[str], device: str
) -> DiffusersDenoiser | PromptDenoiser:
    network = getattr(pipe, kind.network)
    make = DiffusersDenoiser if kind.decoder is None else LatentDenoiser
    settings: dict[str, Any] = {"prediction_type": training.prediction_type}
    if kind.text:
        inner = make(network, training.process, **settings)
        return PromptDenoiser(inner, conditions_of(pipe, texts, device))
    count = network.config.get("num_embeds_ada_norm") or network.config.get("num_class_embeds")
    null = None
    if kind.network == "transformer":  # a DiT has an embedding more, for "no class"
        null = torch.tensor([count], device=device)
    return make(network, training.process, uncond=null, num_classes=count, **settings)


def _tokens(pipe: Any, texts: list[str]) -> list[Any]:
    """What the tokenizers make of the prompts: their files are no weights, but they count.

    Padded, with the empty prompt, and with the length that prompts are cut to.
    """
    if not texts:
        return []
    names = sorted(part for part in pipe.components if part.startswith("tokenizer"))
    tokenizers = [getattr(pipe, part) for part in names]
    return [
        (one([*texts, ""], padding=True)["input_ids"], one.model_max_length)
        for one in tokenizers if one is not None
    ]  # fmt: skip
