"""The study of the Eyeriss platform behind `eyeriss.md`: what the slides on energy-aware pruning say of networks."""

from bench.studies.eyeriss.networks import NETWORKS, Kept, amounts, published_layers
from bench.studies.eyeriss.page import NAME, check, page_files, write

__all__ = ["NAME", "NETWORKS", "Kept", "amounts", "check", "page_files", "published_layers", "write"]
