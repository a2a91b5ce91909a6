"""Ranks methods at equal measured joules, with intervals and corrected comparisons; see bench.ranking.ranking."""

from bench.ranking.ranking import Pair, Range, Ranking, rank, ranking

__all__ = ["Pair", "Range", "Ranking", "rank", "ranking"]
