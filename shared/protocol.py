"""The numbers that a comparison holds fixed for every method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """Counts, batch sizes and hyper-parameters of one named protocol; identical for all methods."""

    name: str  # id on the command line and in records
    iterations: int  # T: training iterations, which every method spends exactly
    fine_tune_iterations: int  # after compression, the closing ones included
    batch_size: int  # images per training iteration, in compression and in fine-tuning
    learning_rate: float  # Adam's, constant in compression; fine-tuning starts from it
    budgets: tuple[float, ...]  # fractions of the dense network's reading on the platform
    seeds: tuple[int, ...]  # one run per method, budget and seed
    search_images: int  # images of the search split on which a candidate network is scored
    minimum_short_term_iterations: int  # NetAdapt: least training of a candidate before it is scored
    episodes: int  # AMC: episodes of all stages together; `random`: number of networks that it tries
    stages: int  # AMC: rounds of search, pruning and training
    weight_decay: float = 1e-4  # coupled (added to the gradient), as in the ECC paper, section 4.1
    distillation: float = 0.5  # weight of the distillation term in the loss; published code of the ECC paper
    recalibration_batches: int = 20  # training batches that batch norm's statistics are averaged over after pruning
    profile_samples: int = 10_000  # width vectors in a platform's profile
    profile_test_samples: int = 2_000  # those of them that judge the energy model and don't fit it
    rho: float = 10.0  # ecc-paper: both penalty parameters, rho_1 and rho_2
    fine_tune_decays: bool = True  # True: cosine annealing of fine-tuning's rate to zero; False: a constant rate
    closing_iterations: int = 0  # the last ones of fine-tuning, on the task's loss alone, with a fresh Adam
    closing_learning_rate: float = 0.0  # where the cosine annealing of the closing iterations starts
    inference_batch: int | None = None  # images at once in a reading; None: the platform chooses for the network
    ranks: bool = True  # False: captions say that this protocol ranks nothing
