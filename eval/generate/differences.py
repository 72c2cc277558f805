"""How two settings differ, as text."""

import json
from pathlib import Path
from typing import Any

from fewstep.eval.cache import digest


def difference(path: Path, there: dict[str, Any], now: dict[str, Any]) -> str:
    """The message for a folder of settings ``there`` that settings ``now`` were meant for."""
    keys = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    lines = [f"  {key}: {_short(there.get(key))} there, {_short(now.get(key))} now" for key in keys]
    # Launchers and the number of processes change it, and nobody sees them do so.
    threads = f" (OMP_NUM_THREADS={there.get('threads')})" if "threads" in keys else ""
    return "\n".join(
        [f"{path} was made with other settings:", *lines,
         f"go on with those settings{threads}, use another folder, or delete this one"]
    )  # fmt: skip


def _short(value: Any) -> str:
    text = json.dumps(value)
    # The ends of two lists may be equal: the hash tells that they are not.
    return text if len(text) <= 70 else f"{text[:50]}... (sha256 {digest([text])[:8]})"
