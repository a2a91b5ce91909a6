"""ECC (Yang, Zhu, Liu, CVPR 2019), its literal and its invariant variant, and the control that shares its schedule."""

from methods.ecc.ecc import ECC
from methods.ecc.invariant import ECCInvariant
from methods.ecc.paper import ECCPaper
from methods.ecc.uniform_gradual import UniformGradual

__all__ = ["ECC", "ECCInvariant", "ECCPaper", "UniformGradual"]
