"""Boards that networks run on by themselves: the file that runs there, what the host writes for it and reads back."""
