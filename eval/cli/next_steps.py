"""What a command ends with: the command to type next, ready to paste where that can be."""

import shlex
from pathlib import Path
from typing import Any

# Models whose images are those of the bundled reference.
LIKE_FASHION = ("fashion", "fashion-edm")
BUNDLED_EXTRACTOR = "fd-cnn:fashion"
REAL = "REAL.npz"  # to be put in by the user


def command(*parts: object) -> str:
    """A command as a shell reads it."""
    return shlex.join(str(part) for part in parts)


def next_line(text: str) -> str:
    """The last line of a command."""
    return f"next: {text}"


def after_gen(folder: Path) -> str:
    """Scoring, for images; looking through the files again for whatever else."""
    from fewstep.eval.generate.shards import ShardFolder  # which needs torch

    config = ShardFolder(folder).config()
    if len(config["image_shape"]) != 3 and config["keep"] == "images":
        return next_line(command("fewstep", "verify", folder))
    report = folder.with_name(f"{folder.name}-report") if folder.name else Path("report")
    bundled = config["keep"] == "images" or config["extractor"] == BUNDLED_EXTRACTOR
    if _is_like_fashion(config) and bundled:
        return next_line(command("fewstep", "calc", folder, "--ref", "fashion", "-o", report))
    own = [] if config["keep"] == "images" else ["--extractor", config["extractor"]]
    return next_line(
        f"{command('fewstep', 'calc', folder, '--ref', REAL, *own, '-o', report)} (with {REAL} of "
        f"`{command('fewstep', 'ref', 'REAL_IMAGES', '-o', REAL, *own)}`)"
    )


def after_scores(folders: list[Path], ref: str, out: Path | None, metrics: str) -> str:
    """Looking at the page; or how to have one, of folders of ``fewstep gen``."""
    if out is not None:
        return next_line(f"open {out / 'report.html'}; {command('fewstep', 'verify', folders[0])}")
    more = [] if metrics == "fd" else ["--metrics", metrics]
    return next_line(
        f"{command('fewstep', 'calc', *folders, '--ref', ref, *more, '-o', 'report')} for a page"
    )


def _is_like_fashion(config: dict[str, Any]) -> bool:
    return config["problem"] in LIKE_FASHION and list(config["image_shape"]) == [1, 28, 28]
