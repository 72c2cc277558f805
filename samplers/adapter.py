"""The diffusers side: a scheduler whose ``step`` runs one evaluation of a plan."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from fewstep.samplers import settings
from fewstep.samplers.auto import auto_grid
from fewstep.samplers.convert import Prediction
from fewstep.samplers.execute import Executor
from fewstep.samplers.index import Position, draw_noise
from fewstep.samplers.plan import Plan
from fewstep.samplers.registry import SAMPLERS
from fewstep.samplers.threshold import dynamic_threshold
from fewstep.schedules.grids import GRIDS, Grid, grid_from_sigmas, grid_from_times, make_grid
from fewstep.schedules.process import VE, DiscreteVP, Flow, NoiseProcess
from fewstep.schedules.peers import diffusers_grid
from fewstep.schedules.spacing import grid_rule_from_config, shift_from_config


class StepOutput(BaseOutput):  # type: ignore[misc]
    """What ``step`` returns.

    Attributes:
        prev_sample: the sample to call the network with next.
        pred_original_sample: the data prediction of this call, for previews.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class PlanSchedulerMixin(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Base of all our schedulers; a subclass names its entry of the registry.

    ``set_timesteps(n)`` makes a plan of exactly n network calls from the config as it is at that
    moment, ``timesteps`` holds one float per call, ``order`` is 1, and any entry is a legal start.
    """

    _compatibles: ClassVar[list[str]] = [entry.name for entry in KarrasDiffusionSchedulers]
    order = 1
    sampler: ClassVar[str]

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As in diffusers; a config of another class is adopted (see ``settings``)."""
        if not isinstance(config, Mapping):
            return super().from_config(config, return_unused_kwargs, **kwargs)
        if settings.is_foreign(config):
            config = settings.adopt(config, kwargs)
        # Keys of other classes ride along for the way back, without diffusers' warning about them.
        known = inspect.signature(cls.__init__).parameters
        own = {key: v for key, v in config.items() if key in known or key.startswith("_")}
        scheduler, unused = super().from_config(own, True, **kwargs)
        scheduler.register_to_config(
            **{key: value for key, value in config.items() if key not in own}
        )
        if return_unused_kwargs:
            return scheduler, unused
        if mistyped := kwargs.keys() - known.keys() - settings.LOADING_KWARGS:
            raise TypeError(f"{cls.__name__} has no argument {min(mistyped)!r}")
        return scheduler

    def _setup(self) -> None:
        self.num_inference_steps: int | None = None
        self.plan: Plan | None = None
        self._executor: Executor | None = None
        self._position = Position(())
        process = self.process
        Prediction(self.config.prediction_type)
        if isinstance(process, DiscreteVP):
            self.alphas_cumprod = torch.tensor(process.alphas_cumprod, dtype=torch.float32)
            self.alphas = torch.cat([self.alphas_cumprod[:1], self.alphas_cumprod[1:] / self.alphas_cumprod[:-1]])
            self.betas = 1 - self.alphas
        times = process.time(process.rho_max)
        count = int(self.config.num_train_timesteps)
        self.timesteps = torch.linspace(float(times), 0, count, dtype=torch.float32)
        self.sigmas = torch.zeros(0)

    @property
    def process(self) -> NoiseProcess:
        """The noise process of the config as it is now."""
        return settings.process_of(self.config)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise to start from."""
        if self.plan is not None and isinstance(self.process, VE):
            return self.plan.evaluations[0].sigma
        return self.process.start_scale

    @property
    def step_index(self) -> int | None:
        """The evaluation that the next ``step`` consumes; None before the first."""
        return self._position.index

    @property
    def begin_index(self) -> int | None:
        return self._position.begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts the trajectory at an entry of ``timesteps`` (image-to-image)."""
        self._position.begin = begin_index

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Makes the plan.

        Args:
            num_inference_steps: network calls, >= 1.
            device: of ``timesteps``.
            timesteps: network times to call at, falling, instead of a grid.
            sigmas: noise levels instead of a grid, sigma of a flow or EDM model and sigma / alpha
                otherwise, n of them or n + 1 with a final 0.
            mu: of dynamic shifting.

        Raises:
            ValueError: if not exactly one of the three is given, or for levels that do not fall.
        """
        given = [num_inference_steps, timesteps, sigmas]
        if timesteps is not None or sigmas is not None:
            given = given[1:]
        if sum(value is not None for value in given) != 1:
            raise ValueError("pass one of num_inference_steps, timesteps= and sigmas=")
        grid, nfe, self.grid_reason = self._choose(num_inference_steps, timesteps, sigmas, mu)
        entry = SAMPLERS[self.sampler]
        options = {name: self.config[name] for name in entry.options()}
        self._adopt(entry.plan(grid, nfe, options), device)

    def _adopt(self, plan: Plan, device: torch.device | str | None) -> None:
        config, rows = self.config, plan.evaluations
        prediction = Prediction(config.prediction_type, settings.sigma_data_of(config))
        threshold = None
        if config.thresholding:
            threshold = dynamic_threshold(config.dynamic_thresholding_ratio, config.sample_max_value)
        self._executor = Executor(plan, prediction, threshold=threshold)
        self.plan = plan
        self.num_inference_steps = plan.nfe
        self.timesteps = torch.tensor([row.time for row in rows], dtype=torch.float32, device=device)
        native = isinstance(self.process, Flow)
        marks = [(row.alpha, row.sigma) for row in rows] + [plan.end]
        self.sigmas = torch.tensor(
            [sigma if native else sigma / alpha if alpha else np.inf for alpha, sigma in marks],
            dtype=torch.float32,
        )
        self._position = Position(self.timesteps)

    def _choose(
        self, n: int | None, timesteps: Any, sigmas: Any, mu: float | None
    ) -> tuple[Grid, int, str]:
        """The grid, the number of calls, and the rule that chose the grid."""
        process, seen = self.process, settings.view(self.config)
        if timesteps is not None or sigmas is not None:
            return self._explicit(process, timesteps, sigmas, mu)
        if n is None or n < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {n}")
        wanted, origin = self.config.grid, self.config.inherited_from
        entry = SAMPLERS[self.sampler]
        if wanted == "diffusers":
            steps = entry.intervals(process, n)
            return diffusers_grid(process, seen, steps, mu=mu), n, "grid='diffusers'"
        choice = grid_rule_from_config(seen, obey_spacing=origin is None, mu=mu)
        final = choice.final if choice.name != "auto" else self.config.final_sigmas_type or "zero"
        final = "zero" if origin is not None else final
        steps = entry.intervals(process, n, final == "zero")
        name, reason = (choice.name, choice.reason) if wanted == "auto" else (wanted, "grid=")
        if name == "auto":
            grid = auto_grid(self.sampler, process, steps, final=final, shift=choice.shift)
            return grid, n, f"{grid.name}, the automatic rule of {self.sampler}"
        if name not in GRIDS:
            raise ValueError(f"unknown grid {name!r}; known: auto, diffusers, {', '.join(GRIDS)}")
        grid = make_grid(process, steps, name, final=final, power=choice.power, shift=choice.shift)
        return grid, n, reason

    def _explicit(
        self, process: NoiseProcess, timesteps: Any, sigmas: Any, mu: float | None
    ) -> tuple[Grid, int, str]:
        values = [float(value) for value in (timesteps if sigmas is None else sigmas)]
        if sigmas is None:
            grid = grid_from_times(process, values)
        else:
            if isinstance(process, Flow):
                shift = shift_from_config(settings.view(self.config), mu)
                values = [shift * s / (1 + (shift - 1) * s) for s in values]
            grid = grid_from_sigmas(process, values)
        calls = grid.nfe
        if SAMPLERS[self.sampler].two_stage:
            calls = 2 * calls - int(grid.alpha[0] == 0) - int(grid.rho[-1] == 0)
            calls = max(calls, 1)
        return grid, calls, "timesteps=" if sigmas is None else "sigmas="

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The network's input: the sample, or EDM's c_in x = x / sqrt(sigma^2 + sigma_data^2)."""
        scale = settings.sigma_data_of(self.config)
        if scale is None or self.plan is None:
            return sample
        sigma = self.plan.evaluations[self._position.peek(timestep)].sigma
        return sample / (sigma**2 + scale**2) ** 0.5

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> StepOutput | tuple[Tensor]:
        """Advances the sample by one evaluation of the plan.

        Args:
            model_output: the network's output at ``sample``, of its shape.
            timestep: the entry of ``timesteps``; read at the first call only, if at all.
            sample: what the network was called with, before ``scale_model_input``.
            generator: one for the batch, or a list or tuple with one for each sample.
            variance_noise: unit noise to use instead of drawing it.
            return_dict: a ``StepOutput``, or the tuple (prev_sample,).

        Raises:
            ValueError: before ``set_timesteps``, after the last step, or for an entry of
                ``timesteps`` out of turn.
        """
        if self._executor is None:
            raise ValueError("call set_timesteps(n) before step()")
        index = self._position.take(timestep)
        if self._position.fresh:
            self._executor.reset()

        def draw(like: Tensor) -> Tensor:
            if variance_noise is not None:
                return variance_noise.to(device=like.device, dtype=like.dtype)
            return draw_noise(like, generator)

        data = (
            self._executor.data_prediction(index, model_output, sample) if return_dict else None
        )
        previous = self._executor.step(index, model_output, sample, draw)
        self._position.advance()
        return StepOutput(prev_sample=previous, pred_original_sample=data) if return_dict else (previous,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha_t x0 + sigma_t noise in training time: (n,) integer or float network times."""
        alpha, sigma = self._levels(torch.as_tensor(timesteps, device=original_samples.device))
        shape = (-1,) + (1,) * (original_samples.ndim - 1)
        alpha, sigma = (c.to(original_samples.dtype).view(shape) for c in (alpha, sigma))
        return alpha * original_samples + sigma * noise

    def scale_noise(
        self, sample: Tensor, timestep: Tensor | float, noise: Tensor | None = None
    ) -> Tensor:
        """``add_noise`` under the name and argument order of diffusers' flow schedulers."""
        if noise is None:
            raise ValueError("scale_noise needs noise=")
        return self.add_noise(sample, noise, torch.as_tensor(timestep, device=sample.device))

    def _levels(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at network times, without reading them from the device."""
        process, times = self.process, times.reshape(-1).to(torch.float32)
        if isinstance(process, Flow):
            sigma = times / process.num_train_timesteps
            return 1 - sigma, sigma
        table = np.arange(int(self.config.num_train_timesteps), dtype=np.float64)
        if not isinstance(process, DiscreteVP):
            table = np.linspace(*np.sort(process.time([process.rho_min, process.rho_max])), 4096)
            if isinstance(process, VE):
                sigma = times if process.time_is == "sigma" else (4 * times).exp()
                return torch.ones_like(sigma), sigma
        pair = process.alpha_sigma(table)
        place = (times - float(table[0])) / float(table[1] - table[0])
        low = place.floor().clamp(0, len(table) - 2).long()
        part = (place - low).clamp(0, 1)
        columns = [torch.tensor(c, dtype=torch.float32, device=times.device) for c in pair]
        alpha, sigma = (torch.lerp(c[low], c[low + 1], part) for c in columns)
        return alpha, sigma

    def clone(self) -> Self:
        """An independent scheduler with the same config (one per thread or trajectory)."""
        return type(self).from_config(self.config)
