"""EAP (Yang, Chen, Sze, CVPR 2017), for channels and to an energy budget."""

from methods.eap.eap import EAP

__all__ = ["EAP"]
