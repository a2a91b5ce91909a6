"""One ranking of all filters with learned latents: LcP (arXiv 1810.00518) and LeGR (CVPR 2020)."""

from methods.lcp.lcp import LcP, LeGR

__all__ = ["LcP", "LeGR"]
