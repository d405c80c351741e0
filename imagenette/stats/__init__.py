"""Which differences are real: intervals and tests for few runs on one test set; scipy underneath.

Shares are in [0, 1]. An interval is for 95 %. Knows neither runs nor models, and imports no other folder.

    shares   one accuracy; two classifiers on the same images or on others; Holm's correction
    arms     several runs each: seeds and images both random, one test for a difference or a trend
    ranking  which arms may be the best
    power    what so many runs can find
    spread   what an arm's runs scatter by, and a seed that lies apart
"""

from imagenette.stats.arms import (
    Contrast,
    Scores,
    Spread,
    contrast,
    off_the_line,
    one_more_seed,
    trend,
    two_level,
)
from imagenette.stats.power import Precision, expected, runs_needed, smallest_difference
from imagenette.stats.ranking import may_be_best, shares_of_being_best
from imagenette.stats.shares import (
    CONFIDENCE,
    LEVEL,
    Answers,
    Difference,
    Interval,
    McNemar,
    holm,
    mcnemar,
    paired_shares,
    t_interval,
    unpaired_shares,
    wilson,
)
from imagenette.stats.spread import Parts, apart, parts

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "Answers",
    "Contrast",
    "Difference",
    "Interval",
    "McNemar",
    "Parts",
    "Precision",
    "Scores",
    "Spread",
    "apart",
    "contrast",
    "expected",
    "holm",
    "may_be_best",
    "mcnemar",
    "off_the_line",
    "one_more_seed",
    "paired_shares",
    "parts",
    "runs_needed",
    "shares_of_being_best",
    "smallest_difference",
    "t_interval",
    "trend",
    "two_level",
    "unpaired_shares",
    "wilson",
]
