"""The study of energy models behind `energy-models.md`: section 4.2 of the ECC paper on simulated platforms."""

from bench.energy_study.page import page, page_files
from bench.energy_study.plan import Plan
from bench.energy_study.study import check, write

__all__ = ["Plan", "check", "page", "page_files", "write"]
