"""Boards that measure networks by themselves: the runner on the board, and the files exchanged with the host."""
