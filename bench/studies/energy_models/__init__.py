"""The study of energy models behind `energy-models.md`: section 4.2 of the ECC paper on simulated platforms."""

from bench.studies.energy_models.page import page, page_files
from bench.studies.energy_models.plan import Plan
from bench.studies.energy_models.study import check, write

__all__ = ["Plan", "check", "page", "page_files", "write"]
