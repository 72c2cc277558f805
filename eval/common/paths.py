"""Names of folders to write to: one that reads like a file's is a mistake."""

import mimetypes
from pathlib import Path

# Of files that this package or its users have, beside those that the standard library knows.
SUFFIXES = (
    ".npz", ".npy", ".pt", ".pth", ".ckpt", ".safetensors", ".yaml", ".yml", ".jsonl", ".toml",
    ".pkl", ".pickle", ".7z", ".rar", ".zst", ".parquet", ".log", ".ipynb", ".md",
)  # fmt: skip
# Without the files of the machine, which would make the answer differ from one to another.
_KNOWN = mimetypes.MimeTypes(filenames=())


def check_folder_name(path: Path, option: str, files: str = "") -> None:
    """Passes the name of a folder to write to.

    Args:
        path: there or not; a folder that is there may have any name, and ``run-1.5`` is none of a
            file.
        option: that it was given by.
        files: the suffixes of files that it may name instead, as ``.zip or .npz``.

    Raises:
        ValueError: for a file, and a name with the suffix of one, in one line with the remedy.
    """
    if path.is_dir():
        return
    if path.exists():
        raise ValueError(
            f"cannot write to a folder of this name, {path} is a file; choose another for {option}"
        )
    bare = path
    while _is_of_files(bare.suffix.lower()):  # .tar.gz
        bare = bare.with_suffix("")
    if bare == path:
        return
    or_files = f" or a {files} file" if files else ""
    raise ValueError(
        f"{option} takes a folder{or_files}, and {path} has the suffix of another file: write "
        f"{bare} for a folder"
    )


def _is_of_files(suffix: str) -> bool:
    compressed = suffix in _KNOWN.encodings_map or suffix in _KNOWN.suffix_map
    return suffix in SUFFIXES or compressed or any(suffix in of for of in _KNOWN.types_map)
