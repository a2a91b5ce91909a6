"""Jetson boards, read through their INA3221 chips."""
