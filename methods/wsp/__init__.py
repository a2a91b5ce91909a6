"""WSP (Yang, Zhu, Liu, ICLR 2019), for channels."""

from methods.wsp.wsp import WSP

__all__ = ["WSP"]
