"""EAP (Yang, Chen, Sze, CVPR 2017) to an energy budget, for channels and, as published, for weights."""

from methods.eap.eap import EAP
from methods.eap.weights import EAPWeights

__all__ = ["EAP", "EAPWeights"]
