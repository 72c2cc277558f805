"""Guidance: sources of directions, modifiers of them, and hooks on a run.

``sample(guidance=(ICG(1.4) | Interval(0.28, 2.9)) + TSG())``. Read expression.py (how sources and
modifiers combine), then sources/contrast.py (the shortest sources), then driver.py (how all of
them are answered by one call of the network). The rooms:

- sources: each asks a network for something and answers with a direction.
- modifiers: when a direction acts, how strongly, and in what shape.
- pipelines: :func:`attach` and :func:`detach`, guidance in the stock pipelines of diffusers.
- hooks: what acts on samples instead of predictions, at the start or between steps.
- parse: the written form, such as ``"cfg:2|interval:0.3,6"``.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.guidance":
    raise ImportError(f"import fewstep.guidance, not {__name__}")

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.guidance.context import Context as Context
    from fewstep.guidance.context import Counters as Counters
    from fewstep.guidance.driver import GuidedDenoiser as GuidedDenoiser
    from fewstep.guidance.entry import guide as guide
    from fewstep.guidance.expression import Expression as Expression
    from fewstep.guidance.expression import Modifier as Modifier
    from fewstep.guidance.expression import Source as Source
    from fewstep.guidance.hooks import BoostAndSkip as BoostAndSkip
    from fewstep.guidance.hooks import FKSteering as FKSteering
    from fewstep.guidance.modifiers.shaping import DynamicThreshold as DynamicThreshold
    from fewstep.guidance.modifiers.shaping import Project as Project
    from fewstep.guidance.modifiers.shaping import Rescale as Rescale
    from fewstep.guidance.modifiers.shaping import ZeroStar as ZeroStar
    from fewstep.guidance.modifiers.strength import CFGpp as CFGpp
    from fewstep.guidance.modifiers.strength import Every as Every
    from fewstep.guidance.modifiers.strength import Interval as Interval
    from fewstep.guidance.modifiers.strength import ScaleSchedule as ScaleSchedule
    from fewstep.guidance.parse import parse_guidance as parse_guidance
    from fewstep.guidance.pipelines.attachment import Attachment as Attachment
    from fewstep.guidance.pipelines.attachment import attach as attach
    from fewstep.guidance.pipelines.attachment import detach as detach
    from fewstep.guidance.rows import Direction as Direction
    from fewstep.guidance.rows import Row as Row
    from fewstep.guidance.sources.contrast import CFG as CFG
    from fewstep.guidance.sources.contrast import Autoguidance as Autoguidance
    from fewstep.guidance.sources.gfcg import GFCG as GFCG
    from fewstep.guidance.sources.gradients import ClassifierGuidance as ClassifierGuidance
    from fewstep.guidance.sources.gradients import EnergyGuidance as EnergyGuidance
    from fewstep.guidance.sources.independent import ICG as ICG
    from fewstep.guidance.sources.independent import TSG as TSG
    from fewstep.guidance.sources.minority import Minority as Minority
    from fewstep.guidance.sources.minority import SelfMinority as SelfMinority
else:
    __getattr__, __dir__, __all__ = door(__name__)
