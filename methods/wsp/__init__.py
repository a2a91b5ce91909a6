"""WSP (Yang, Zhu, Liu, ICLR 2019), for channels and, as published, for weights."""

from methods.wsp.masked import WSPMasked
from methods.wsp.weights import WSPWeights
from methods.wsp.wsp import WSP

__all__ = ["WSP", "WSPMasked", "WSPWeights"]
