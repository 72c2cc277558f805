"""How two settings differ, as text; what a model answers is compared within a tolerance."""

import json
from pathlib import Path
from typing import Any

from fewstep.eval.common.cache import digest
from fewstep.eval.common.sketches import agree

ANSWERS = {"answers": "its answers to fixed noise", "decoder": "its decoder's images of noise"}
OF_MODEL = ("fingerprint", "model", *ANSWERS)


def differing(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of the settings that differ."""
    return [key for key in {**there, **now} if not _same(there.get(key), now.get(key))]


def model_changes(there: dict[str, Any], now: dict[str, Any]) -> str:
    """How ``Problem.identity`` differs in two settings; an empty text if it does not."""
    then, parts = there.get("model", {}), now.get("model", {})
    changed = [f"the {name}" for name in {**then, **parts} if then.get(name) != parts.get(name)]
    answers = [key for key in ANSWERS if not _same(there.get(key), now.get(key))]
    if not changed and not answers:
        return ""
    if not answers:
        return (
            f"the model may do something else than when the folder was begun: {_listed(changed)} "
            "changed, though not its answers to fixed noise at two levels"
        )
    return (
        "the model does something else than when the folder was begun: "
        f"{_listed([*changed, *(ANSWERS[key] for key in answers)])} changed"
    )


def difference(path: Path, there: dict[str, Any], now: dict[str, Any]) -> str:
    """The message for a folder of settings ``there`` that settings ``now`` were meant for."""
    keys = differing(there, now)
    # Of a model of another name nobody asks what changed in it: its fingerprint is enough.
    renamed = "problem" in keys
    told = "" if renamed else model_changes(there, now)
    hidden = OF_MODEL[1:] if renamed else OF_MODEL if told else ()
    keys = [key for key in keys if key not in hidden]
    lines = [f"  {told};"] if told else []
    lines += [f"  {_line(key, there.get(key), now.get(key))};" for key in keys]
    # Launchers and the number of processes change it, and nobody sees them do so.
    threads = f" (OMP_NUM_THREADS={there.get('threads')})" if "threads" in keys else ""
    return "\n".join(
        [f"{path} was made with other settings:", *lines,
         f"go on with those settings{threads}, use another folder, or delete this one"]
    )  # fmt: skip


def _line(key: str, there: Any, now: Any) -> str:
    """One setting; of two lists, what differs first."""
    if isinstance(there, list) and isinstance(now, list):
        first = next((i for i, (a, b) in enumerate(zip(there, now, strict=False)) if a != b), None)
        place = min(len(there), len(now)) if first is None else first
        key = f"{key}[{place}]"
        texts = [_short(value[place]) if place < len(value) else "none" for value in (there, now)]
        return f"{key}: {texts[0]} there, {texts[1]} now"
    return f"{key}: {_short(there)} there, {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value)
    # The ends of two values may differ: the hash tells that they do.
    return text if len(text) <= 70 else f"{text[:50]}... (sha256 {digest([text])[:8]})"


def _same(there: Any, now: Any) -> bool:
    if all(isinstance(value, dict) and "tolerance" in value for value in (there, now)):
        return agree(there, now)
    return bool(there == now)


def _listed(texts: list[str]) -> str:
    return " and ".join([*([", ".join(texts[:-1])] if texts[1:] else []), texts[-1]])
