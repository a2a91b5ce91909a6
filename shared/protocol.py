"""The numbers that a comparison holds fixed for every method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """Counts, batch sizes and hyper-parameters of one named protocol; identical for all methods.

    The budgets are fractions of the dense network's platform reading. `minimum_short_term_iterations` is the least
    training that a NetAdapt candidate gets before it is judged; `episodes` is AMC's total over its `stages`, and the
    number of tries that `random` has; `rho` is both penalty parameters of `ecc-paper`. The last `closing_iterations` of
    fine-tuning train on the task's loss alone, from `closing_learning_rate` along half a cosine to zero.
    """

    name: str
    iterations: int  # T, training iterations of every method
    fine_tune_iterations: int  # all of them, the closing ones too
    batch_size: int
    learning_rate: float
    budgets: tuple[float, ...]
    seeds: tuple[int, ...]
    search_images: int  # images of the search split that judge a candidate
    minimum_short_term_iterations: int
    episodes: int
    stages: int
    weight_decay: float = 1e-4  # coupled, as in the ECC paper, section 4.1
    distillation: float = 0.5  # share of the distillation term, published code of the ECC paper
    recalibration_batches: int = 20
    profile_samples: int = 10_000
    profile_test_samples: int = 2_000
    rho: float = 10.0
    fine_tune_decays: bool = True  # along half a cosine to zero; False: a constant rate
    closing_iterations: int = 0
    closing_learning_rate: float = 0.0
    inference_batch: int | None = None  # at which platforms are read; None: the platform's choice for the network
    ranks: bool = True  # False: the caption says that the protocol ranks nothing
