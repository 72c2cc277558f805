"""The scheduler config of a noise process, for plans of models that come without a pipeline."""

from collections.abc import Iterator
from typing import Any

from fewstep.samplers.adapter.schedulers import PlanScheduler
from fewstep.schedules.identity import BETAS
from fewstep.schedules.prediction import Prediction
from fewstep.schedules.process import VE, ContinuousVP, DiscreteVP, Flow, NoiseProcess

VE_CLASSES = {
    "sigma": "ScoreSdeVeScheduler",
    "log": "EDMEulerScheduler",
    "atan": "CosineDPMSolverMultistepScheduler",
}


def scheduler_config(process: NoiseProcess, prediction_type: str) -> dict[str, Any]:
    """Settings of a :class:`fewstep.PlanScheduler` whose noise process is the given one.

    Models of EDM's kind are taken as they are called here, without the scaling of their input and
    output that a scheduler's ``sigma_data`` does.

    Args:
        process: of a model.
        prediction_type: what the model predicts, one of
            ``fewstep.schedules.prediction.PREDICTIONS``.

    Returns:
        For ``PlanScheduler.from_config`` and :func:`fewstep.samplers.adapter.files.save_tuned`.

    Raises:
        ValueError: for another prediction type, or a process that no scheduler config has.
    """
    Prediction(prediction_type)
    wanted = process.identity()
    for settings in _candidates(process):
        config = {**settings, "prediction_type": prediction_type}
        if PlanScheduler.from_config(config).process.identity() == wanted:
            return config
    raise ValueError(
        f"no scheduler config has the noise process {wanted} with prediction_type "
        f"{prediction_type!r}: save the plan alone, with plan.save(path)"
    )


def _candidates(process: NoiseProcess) -> Iterator[dict[str, Any]]:
    if isinstance(process, DiscreteVP):
        count = {"num_train_timesteps": process.num_train_timesteps}
        for betas in BETAS:
            for rescaled in (False, True):
                yield {**count, **betas, "rescale_betas_zero_snr": rescaled}
        yield {**count, "trained_betas": (1 - process.alphas).tolist()}
    elif isinstance(process, ContinuousVP):
        ends = {"beta_min": process.beta_min, "beta_max": process.beta_max}
        yield {"_class_name": "ScoreSdeVpScheduler", **ends, "sampling_eps": process.t_min}
    elif isinstance(process, VE):
        ends = {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max}
        yield {"_class_name": VE_CLASSES[process.time_is], **ends}
    elif isinstance(process, Flow):
        yield {"num_train_timesteps": process.num_train_timesteps, "use_flow_sigmas": True}
