"""Studies beside the comparison: energy models, the simulator's calibration, learning rates."""
