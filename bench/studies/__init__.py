"""Studies that stand beside the comparison: energy models, the simulator's calibration, learning rates."""
