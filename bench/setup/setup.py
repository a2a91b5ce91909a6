"""The setup: all that the runs of a plan share. Nothing in it depends on a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bench.setup import dense, protocols, workload
from bench.setup.budgets import Budget, Reach
from bench.setup.dense import DenseWeights
from bench.setup.request import Request
from bench.setup.workload import Workload
from shared import energy, platforms
from shared.cache import checked_cache_dir
from shared.computing import ON_CPU, Computing, computing
from shared.data import Dataset
from shared.energy import BilinearModel, EnergyFit, LocalFit, Profile, ZeroSavings
from shared.energy.terms import CORRECTED, KINDS
from shared.errors import BadInput
from shared.networks import Structure
from shared.platforms import Platform, Subject
from shared.protocol import Protocol

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Setup:
    """Network, data, platform and energy model of a plan.

    Setups compare by identity, since they hold arrays and serve as keys of caches.

    request: the options that were asked for.
    workload: the network and its data set.
    protocol: the counts and rates that are the same for every method.
    dataset: images, on the device of `computing`.
    platform: the hardware or simulator that reads joules or another amount.
    structure: units and operations of the dense network.
    profile: the platform's readings of many width vectors.
    fit: the energy model fitted to them, with its errors.
    computing: where training runs.
    weights: the dense weights; None until `with_dense_weights`.
    may_read: whether the platform may be read; else its profiles have to be in the cache.
    """

    request: Request
    workload: Workload
    protocol: Protocol
    dataset: Dataset
    platform: Platform
    structure: Structure
    profile: Profile
    fit: EnergyFit
    computing: Computing = ON_CPU
    weights: DenseWeights | None = None
    may_read: bool = True
    _near: dict[float, LocalFit] = field(default_factory=dict, init=False, repr=False)  # by the budget's amount

    @property
    def dense(self) -> DenseWeights:
        """The dense weights, which `with_dense_weights` loads."""
        assert self.weights is not None, "expected a setup with dense weights; try with_dense_weights()"
        return self.weights

    @property
    def subject(self) -> Subject:
        """What the platform reads."""
        return Subject(self.structure, self.workload.build)

    @property
    def unit(self) -> str:
        """Unit of all amounts, as the metric has it: J, s, MAC or B."""
        return self.platform.unit

    @property
    def inference_batch(self) -> int:
        """Images per inference when the platform is read."""
        return self.profile.batch

    @cached_property
    def reach(self) -> Reach:
        """The budgets that can be asked for, by the global energy model."""
        return self.reach_at(None)

    def reach_at(self, budget: Budget | None) -> Reach:
        """The budgets that the budget's own energy model can reach."""
        return Reach(
            floor=self.estimate((1,) * len(self.structure.units), budget),
            dense_reading=self.profile.dense_reading,
            dense_estimate=self.estimate(self.structure.upper_bounds, budget),
            unit=self.unit,
        )

    @property
    def reach_of_weights(self) -> Reach:
        """The budgets that can be asked for where weights are removed and all channels stay.

        They lie above the feature maps and one weight for each channel that a layer reads.
        """
        assert self.zeros is not None, "expected a platform on which zeros save energy; try platform.zeros first"
        who = "a method that removes weights, and leaves the feature maps,"
        return replace(self.reach, floor=self.reach.dense_estimate - self.zeros.most(self.structure), who=who)

    def near(self, budget: Budget) -> LocalFit:
        """The energy model of a budget with its errors near it; the platform is read for it once."""
        if budget.amount not in self._near:
            structure, model = self.structure, self.fit.model
            rows = energy.rows_near(structure, model, budget.amount)
            profile = self.platform.local_profile(
                self.subject,
                rows,
                model(structure.positions(rows)).numpy(),
                batch=self.inference_batch,
                standard=self.profile.dense_reading,
                may_read=self.may_read,
            )
            corrected = self.fit.kind in CORRECTED
            self._near[budget.amount] = energy.local_fit(model, profile, structure, corrected=corrected)
        return self._near[budget.amount]

    def model(self, budget: Budget | None) -> BilinearModel:
        """The energy model that a run sees: that of its budget; the global one without a budget."""
        return self.fit.model if budget is None else self.near(budget).model

    @cached_property
    def zeros(self) -> ZeroSavings | None:
        """What single zero weights save on the platform; None where they cost as much as others."""
        return self.platform.zeros(self.subject, self.inference_batch)

    def estimate(self, widths: tuple[int, ...], budget: Budget | None) -> float:
        """Ê per image at `widths`, by the model of `budget`."""
        return float(self.model(budget)(self.structure.positions(widths)))

    def with_dense_weights(self) -> Setup:
        """The setup with dense weights on the training device: loaded, or trained now where there are none yet."""
        weights = dense.obtain(self.workload, self.dataset, lambda *_: None)
        loaded = replace(self, weights=weights.to(self.computing.device))
        loaded._near.update(self._near)
        return loaded


def prepare(request: Request, say: Say = lambda _: None, *, to_train: bool = False, may_read: bool = True) -> Setup:
    """Load the data, profile the platform (or take its profile from the cache) and fit the energy model.

    say: prints a line about slow work.
    to_train: whether runs follow. Then a data set in files needs its images and dense weights; else the counts and
    shapes of its images are enough.
    may_read: see Setup.
    Raises BadInput for what a user can correct; writes nothing but caches.
    """
    place = computing(request.compute, request.compile)
    place.enter()
    protocol = protocols.get(request.protocol, request.network)
    kind = request.energy_model or protocols.energy_model(request.protocol)
    if kind not in KINDS:
        raise BadInput(f"an energy model out of {', '.join(KINDS)}", repr(kind), "bilinear, the paper's")
    if request.inference_batch is not None:
        if request.inference_batch < 1:
            raise BadInput("--inference-batch of 1 or more images", request.inference_batch, "--inference-batch 1")
        protocol = replace(protocol, inference_batch=request.inference_batch)
    platform = asked_platform(request)
    platform.say = say
    work = workload.of(request)
    if may_read:  # and in no worker, whose plan was checked
        work.check()
    checked_cache_dir()
    folder = None if request.data is None else Path(request.data)
    dataset = (work.load_data(folder) if folder or to_train else work.stand_in_data()).to(place.device)
    if to_train:
        dense.check_weights(work, dataset)
    profile = platform.profile(
        Subject(work.structure, work.build),
        samples=protocol.profile_samples,
        test_samples=protocol.profile_test_samples,
        batch=protocol.inference_batch,
        may_read=may_read,
    )
    fit = energy.fit(profile, work.structure, kind)
    return Setup(request, work, protocol, dataset, platform, work.structure, profile, fit, place, may_read=may_read)


def asked_platform(request: Request) -> Platform:
    """The platform that a request asks. Raises BadInput as `shared.platforms.choose` does."""
    return platforms.choose(request.device, request.metric, request.meter, request.bits)


def reopen(request: Request) -> Setup:
    """The setup that `prepare` has made from the same request, with dense weights, from caches alone.

    For worker processes, which must not read the platform: a reading waits until no process computes, so a worker would
    wait for itself.
    """
    return prepare(request, to_train=True, may_read=False).with_dense_weights()
