"""Guidance: sources of directions, modifiers of them, and hooks on a run.

``sample(guidance=(ICG(1.4) | Interval(0.28, 2.9)) + TSG())``.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.guidance":
    raise ImportError(f"import fewstep.guidance, not {__name__}")

from fewstep.late import late

if TYPE_CHECKING:
    from fewstep.guidance.context import Context, Counters
    from fewstep.guidance.driver import GuidedDenoiser
    from fewstep.guidance.entry import guide
    from fewstep.guidance.expression import Expression, Modifier, Source
    from fewstep.guidance.hooks import BoostAndSkip, FKSteering
    from fewstep.guidance.modifiers.shaping import DynamicThreshold, Project, Rescale, ZeroStar
    from fewstep.guidance.modifiers.strength import CFGpp, Every, Interval, ScaleSchedule
    from fewstep.guidance.parse import parse_guidance
    from fewstep.guidance.pipelines.attachment import Attachment, attach, detach
    from fewstep.guidance.rows import Direction, Row
    from fewstep.guidance.sources.contrast import CFG, Autoguidance
    from fewstep.guidance.sources.gfcg import GFCG
    from fewstep.guidance.sources.gradients import ClassifierGuidance, EnergyGuidance
    from fewstep.guidance.sources.independent import ICG, TSG
    from fewstep.guidance.sources.minority import Minority, SelfMinority

__all__ = [
    "CFG",
    "GFCG",
    "ICG",
    "TSG",
    "Attachment",
    "Autoguidance",
    "BoostAndSkip",
    "CFGpp",
    "ClassifierGuidance",
    "Context",
    "Counters",
    "Direction",
    "DynamicThreshold",
    "EnergyGuidance",
    "Every",
    "Expression",
    "FKSteering",
    "GuidedDenoiser",
    "Interval",
    "Minority",
    "Modifier",
    "Project",
    "Rescale",
    "Row",
    "ScaleSchedule",
    "SelfMinority",
    "Source",
    "ZeroStar",
    "attach",
    "detach",
    "guide",
    "parse_guidance",
]

_NAMES = {
    "pipelines.attachment": ("Attachment", "attach", "detach"),
    "context": ("Context", "Counters"),
    "sources.contrast": ("CFG", "Autoguidance"),
    "driver": ("GuidedDenoiser",),
    "entry": ("guide",),
    "expression": ("Expression", "Modifier", "Source"),
    "sources.gfcg": ("GFCG",),
    "sources.gradients": ("ClassifierGuidance", "EnergyGuidance"),
    "hooks": ("BoostAndSkip", "FKSteering"),
    "sources.independent": ("ICG", "TSG"),
    "sources.minority": ("Minority", "SelfMinority"),
    "modifiers.strength": ("CFGpp", "Every", "Interval", "ScaleSchedule"),
    "parse": ("parse_guidance",),
    "rows": ("Direction", "Row"),
    "modifiers.shaping": ("DynamicThreshold", "Project", "Rescale", "ZeroStar"),
}
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
__getattr__, __dir__ = late(__name__, _HOMES)
