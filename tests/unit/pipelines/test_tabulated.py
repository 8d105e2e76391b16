"""TabulatedSampler samplers: what they cost, what requests share, and noise as diffusers adds it.

That they paint what diffusers paints: `test_solvers.py` and `tests/engine/test_parity.py`.
"""

import copy
import gc
import weakref

import diffusers
import pytest
import torch
from diffusers import SchedulerMixin
from torch.utils._python_dispatch import TorchDispatchMode

from serve_app.pipelines import estimate
from serve_app.pipelines.samplers.solvers import SOLVERS, own_solver
from serve_app.pipelines.samplers.tabulated import StepTables, TabulatedSampler

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
OPTIONS = BETAS | {"skip_prk_steps": True, "clip_sample": False}
LATENTS = (1, 4, 8, 8)


class Counted(TorchDispatchMode):
    """Counts operations that are not mere views."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def run(scheduler: SchedulerMixin, sample: torch.Tensor, begin: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    takes = isinstance(scheduler, TabulatedSampler) or scheduler.__class__.__name__ in NOISY
    for timestep in scheduler.timesteps[begin:]:
        seen = scheduler.scale_model_input(sample, timestep)
        output = torch.tanh(seen) + torch.cos(seen * float(timestep) / 300)
        extra = {"generator": generator} if takes else {}
        sample = scheduler.step(output, timestep, sample, return_dict=False, **extra)[0]
    return sample


NOISY = {
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
}


def start(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(LATENTS, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_step_whose_row_is_known_takes_at_most_five_operations(name: str) -> None:
    scheduler = SOLVERS[name].from_config(OPTIONS)
    tables = StepTables()
    scheduler.share(tables, name)
    again = copy.deepcopy(scheduler)
    again.share(tables, name)
    for one in (scheduler, again):
        one.set_timesteps(6)
    run(scheduler, start())
    output, sample, generator = start(), start(), torch.Generator().manual_seed(1)
    first, *others = again.timesteps
    again.step(output, first, sample, generator)  # finds its table
    for timestep in others:
        with Counted() as counted:
            again.step(output, timestep, sample, generator)
        assert len(counted.names) <= 5, counted.names
        assert not any("scalar" in one or "_to_copy" in one for one in counted.names)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_requests_that_share_tables_end_where_one_alone_does(name: str) -> None:
    alone = SOLVERS[name].from_config(OPTIONS)
    alone.set_timesteps(5)
    expected = run(alone, start())
    tables = StepTables()
    both = [SOLVERS[name].from_config(OPTIONS) for _ in range(2)]
    for one in both:
        one.share(tables, name)
        one.set_timesteps(5)
    assert run(both[0], start()).equal(expected)
    assert run(both[1], start()).equal(expected)
    both[0].set_timesteps(5)
    assert run(both[0], start()).equal(expected), "the schedule is set again"


def test_tables_of_other_schedules_are_others() -> None:
    tables = StepTables()
    for steps, begin in ((5, 0), (6, 0), (6, 2)):
        found = []
        for cls in (SOLVERS["UniPCMultistepScheduler"], diffusers.UniPCMultistepScheduler):
            own = cls.from_config(OPTIONS)
            if isinstance(own, TabulatedSampler):
                own.share(tables, "unipc")
            own.set_timesteps(steps)
            own.set_begin_index(begin)
            found.append(run(own, start(), begin))
        torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"])
def test_orders_and_noise_of_dpm_solvers_equal_stock(name: str, order: int, algorithm: str) -> None:
    if (name, algorithm, order) in {
        (cls, "sde-dpmsolver++", 3) for cls in ("DPMSolverSinglestepScheduler",)
    }:
        pytest.skip("diffusers has no such solver")
    options = OPTIONS | {"algorithm_type": algorithm, "solver_order": order}
    both = []
    for cls in (SOLVERS[name], getattr(diffusers, name)):
        scheduler = cls.from_config(options)
        scheduler.set_timesteps(7)
        both.append(run(scheduler, start()))
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(NOISY))
def test_noise_is_of_the_number_type_that_stock_draws(name: str) -> None:
    both = []
    for cls in (SOLVERS[name], getattr(diffusers, name)):
        scheduler = cls.from_config(OPTIONS)
        scheduler.set_timesteps(4)
        both.append(run(scheduler, start(torch.float64)))
    torch.testing.assert_close(*both, atol=1e-3, rtol=1e-3)  # float32 draws other numbers


@pytest.mark.parametrize("name", list(SOLVERS))
def test_noise_is_added_as_stock_adds_it_before_and_between_steps(name: str) -> None:
    own = SOLVERS[name]
    found: list[list[torch.Tensor]] = []
    for cls in (own, type(name, own.__bases__[1:], {})):  # the second without the tables
        scheduler = cls.from_config(OPTIONS)
        scheduler.set_timesteps(6)
        sample, noise = start(), start().flip(-1)
        made = [scheduler.add_noise(sample, noise, scheduler.timesteps[:1])]
        for timestep, following in zip(
            scheduler.timesteps[:3], scheduler.timesteps[1:4], strict=True
        ):
            seen = scheduler.scale_model_input(sample, timestep)
            scheduler.step(torch.tanh(seen), timestep, sample, return_dict=False)
            made.append(scheduler.add_noise(sample, noise, following[None]))
        found.append(made)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(diffusers.EDMEulerScheduler(), id="edm"),
        pytest.param(diffusers.EDMDPMSolverMultistepScheduler(), id="edm-multistep"),
        pytest.param(diffusers.EulerDiscreteScheduler(timestep_type="continuous"), id="continuous"),
    ],
)
def test_own_samplers_of_checkpoints_equal_stock(base: SchedulerMixin) -> None:
    both = []
    for cls in (own_solver(base), type(base)):
        scheduler = cls.from_config(base.config)
        scheduler.set_timesteps(6)
        both.append(run(scheduler, start() * float(scheduler.init_noise_sigma)))
    torch.testing.assert_close(*both, atol=1e-3, rtol=1e-4)


def test_flow_matching_equals_stock_also_where_noise_is_scaled() -> None:
    base = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    both: list[list[torch.Tensor]] = []
    for cls in (own_solver(base), type(base)):
        scheduler = cls.from_config(base.config)
        scheduler.set_timesteps(sigmas=[1.0, 0.6, 0.3])
        sample, noise = start(), start().flip(-1)
        made = [scheduler.scale_noise(sample, scheduler.timesteps[:1], noise)]
        for timestep in scheduler.timesteps:
            sample = scheduler.step(torch.tanh(sample), timestep, sample, return_dict=False)[0]
        both.append([*made, sample])
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_samplers_that_cut_by_the_picture_run_as_diffusers_made_them() -> None:
    cuts = diffusers.EulerDiscreteScheduler(timestep_type="continuous")
    cuts.register_to_config(thresholding=True)
    assert own_solver(cuts) is diffusers.EulerDiscreteScheduler
    stochastic = diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    assert own_solver(stochastic) is diffusers.FlowMatchEulerDiscreteScheduler


def test_where_the_noise_is_thousands_of_times_the_picture_less_is_rounded_than_in_stock() -> None:
    base = diffusers.EulerDiscreteScheduler(
        **BETAS,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    found = {}
    for cls, dtype in (
        (SOLVERS["EulerDiscreteScheduler"], torch.float32),
        (type(base), torch.float32),
        (SOLVERS["EulerDiscreteScheduler"], torch.float64),
    ):
        scheduler = cls.from_config(base.config)
        scheduler.set_timesteps(20)
        sample = start(dtype) * float(scheduler.init_noise_sigma)
        found[cls, dtype] = run(scheduler, sample).double()
    ours, stock, exact = found.values()
    assert float((ours - exact).abs().max()) < float((stock - exact).abs().max()) / 4


def test_schedule_whose_step_failed_once_is_not_read_from_where_it_stopped() -> None:
    tables = StepTables()
    own = SOLVERS["PNDMScheduler"].from_config(OPTIONS)
    own.share(tables, "pndm")
    own.set_timesteps(5)
    own.step(start(), own.timesteps[0], start())
    own._table._step, right = lambda *_args, **_kwargs: 1 / 0, own._table._step
    with pytest.raises(ZeroDivisionError):
        own.step(start(), own.timesteps[1], start())
    own._table._step = right
    with pytest.raises(AssertionError, match="failed before"):
        own.step(start(), own.timesteps[1], start())


def test_table_keeps_nothing_of_the_request_that_it_was_made_for() -> None:
    class Watcher:
        """Stands for what previews hold: pictures, ControlNets, LoRAs."""

        def __call__(self, _estimate: object) -> None:
            pass

    tables = StepTables()
    watcher = Watcher()
    is_alive = weakref.ref(watcher)
    scheduler = SOLVERS["DDIMScheduler"].from_config(OPTIONS)
    scheduler.share(tables, "")
    scheduler.set_timesteps(4)
    sample = torch.randn(1, 4, 8, 8)
    with estimate.seen(scheduler, watcher):
        for timestep in scheduler.timesteps:
            sample = scheduler.step(sample, timestep, sample, return_dict=False)[0]
    del watcher, scheduler
    gc.collect()
    assert is_alive() is None
