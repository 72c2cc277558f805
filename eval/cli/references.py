"""What ``fewstep ref``, ``verify``, ``export`` and ``convert`` do."""

from pathlib import Path

import torch

from fewstep.eval.cli.calc_console import Use, tell_of_skipped
from fewstep.eval.cli.next_steps import REAL, command, next_line
from fewstep.eval.common.differences import model_changes
from fewstep.eval.common.folders import all_or_nothing, check_writable
from fewstep.eval.common.limits import check_seed
from fewstep.eval.common.paths import check_folder_name
from fewstep.eval.common.processes import resolve_device
from fewstep.eval.common.text import print_line as say
from fewstep.eval.generate import collected
from fewstep.eval.generate.recipe import Recipe
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import verify
from fewstep.eval.images.make_reference import make_reference
from fewstep.eval.images.recheck import RESULT, recheck
from fewstep.eval.images.sources import check_there, open_images
from fewstep.eval.metrics.references import save_reference
from fewstep.eval.metrics.statistics_files import (
    left_out,
    load_features,
    load_statistics,
    save_edm2,
    save_npz,
)
from fewstep.eval.problems import Problem
from fewstep.progress import Progress

PICKLES = (".pkl", ".pickle")


def run_ref(data: str, out: Path, features: int, seed: int, use: Use, progress: Progress) -> None:
    """Writes statistics of images, whole or not at all."""
    if out.suffix.lower() != ".npz" or out.is_dir():
        raise ValueError(f"--out must name an .npz file, got {out}")
    check_there(data)  # before weights, which may have to be fetched
    extractor = use.load("inception:edm")
    check_writable(out.parent)
    images = open_images(data, on_error=use.on_error)
    tell_of_skipped(images.name, images.skipped)
    reference = make_reference(
        images, extractor, features=features, seed=seed, batch=use.batch, progress=progress.at
    )
    progress.close()
    with all_or_nothing(out.parent) as folder:
        save_reference(reference, folder / out.name)
    kept = 0 if reference.features is None else len(reference.features)
    known = reference.statistics
    say(
        f"{out}: {known.n} images, {extractor.name}, weights {extractor.fingerprint[:8]}, features "
        f"of {kept}, dataset {str(known.dataset_hash)[:8]}"
    )
    say(next_line(command("fewstep", "calc", "SAMPLES", "--ref", out)))


def run_verify(
    folder: Path, recompute: int, seed: int, device: str, weights: Path | None, progress: Progress
) -> bool:
    """Checks a folder of ``fewstep gen``, and prints what was found; whether all of it holds."""
    if recompute < 0:
        raise ValueError(f"recompute must be at least 0 units, got {recompute}")
    check_seed(seed)
    shards = ShardFolder(folder)
    try:
        config = shards.config()
    except ValueError as error:
        say(str(error))
        say(f"{folder} does not hold")
        return False
    if weights is not None and not (folder / RESULT).is_file():
        raise ValueError(
            f"--weights are of the extractor of {RESULT}, and {folder} has none: leave them out"
        )
    problem = _model_of_today(shards, device)
    told, run = problem and model_changes(config, problem.identity), None
    problems = [told] if told else []
    if recompute and not problems:
        # The last bits of a network's output depend on it, so that it is one of the settings.
        torch.set_num_threads(config["threads"])
        run = Recipe(**shards.options()).build(resolve_device(device), problem)
    progress.stage("checking every file")
    found = verify(
        folder, recompute=recompute if run else 0, run=run, seed=seed, progress=progress.at
    )
    progress.stage(f"scores of {RESULT}")
    differences = None
    if (folder / RESULT).is_file() and not found.missing:
        differences = recheck(folder, resolve_device(device), weights)
    progress.close()
    say(f"{folder}: {len(found.records)} units, {found.rows} samples, settings "
           f"{found.config_sha256[:12]}, images {(found.hash or 'incomplete')[:12]}")  # fmt: skip
    problems += [f"damaged: {text}" for text in found.damaged]
    if found.missing:
        problems.append(f"missing: {len(found.missing)} units, from unit {found.missing[0]} on")
    if found.recomputed:
        say(f"made again: units {', '.join(map(str, found.recomputed))}")
    problems += [f"unit {unit} came out otherwise when made again" for unit in found.differing]
    if differences is not None:
        problems += [f"{RESULT}: {line}" for line in differences]
        if not differences:
            say(f"{RESULT}: its hashes and scores come out again")
    for line in problems:
        say(line)
    say(f"{folder} {'does not hold' if problems else 'holds'}")
    if found.missing:
        say(next_line("the fewstep gen that it was made by, which makes what is missing"))
    return not problems


def _model_of_today(shards: ShardFolder, device: str) -> Problem | None:
    """The model that the folder names, asked what it does; where it cannot be, that is said."""
    if "model" not in shards.config():
        say("the folder is of a former version, which did not write down what its model does")
        return None
    try:
        problem = Recipe(**shards.options()).problem(resolve_device(device))
        _ = problem.identity
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        say(f"the model cannot be asked here, so that only files are checked: {reason}")
        return None
    return problem


def run_export(folder: Path, out: Path, progress: Progress) -> None:
    """Writes the images of a folder of ``fewstep gen`` for others."""
    ShardFolder(folder).config()  # raises if it is none
    if out.suffix.lower() not in (".npz", ".zip"):
        check_folder_name(out, "the output", ".zip or .npz")
    elif out.is_dir():
        raise ValueError(f"{out} is a folder: name a file, or a folder of another name")
    check_writable(out.parent)
    if out.suffix.lower() == ".npz":
        collected.export_npz(folder, out)
    else:
        collected.export_png(folder, out)
    progress.close()
    say(f"{out}: {open_images(folder).n} images")
    say(next_line(command("fewstep", "calc", out, "--ref", REAL)))


def run_convert(statistics: Path, out: Path, metric: str) -> None:
    """Writes a file of statistics in the other format, whole or not at all."""
    if out.suffix.lower() not in (".npz", *PICKLES) or out.is_dir():
        raise ValueError(f"the output must be an .npz (for most) or .pkl (for edm2), got {out}")
    known = load_statistics(statistics, metric)
    features = load_features(statistics, metric)
    check_writable(out.parent)
    with all_or_nothing(out.parent) as folder:
        if out.suffix.lower() == ".npz":
            save_npz(known, folder / out.name, features)
        else:
            real = {} if features is None else {metric: features}
            save_edm2({metric: known}, folder / out.name, real)
    kept = "none" if features is None else str(len(features))
    say(
        f"{out}: mu {known.mu.shape}, sigma {known.sigma.shape}, n = {known.n or 'not known'}, "
        f"extractor {known.extractor or 'not known'}, features {kept}"
    )
    if lost := left_out(statistics, metric):
        say(f"not carried over, since it is no part of these statistics: {', '.join(lost)}")
