"""Widths that an energy budget allows: uniform ones, greedy ones, bounded ones."""
