"""Training losses, one family to a file; importing a file here registers its objectives."""

from apao.objectives.losses import PairwisePrefixLoss, PointwisePrefixLoss

__all__ = ["PairwisePrefixLoss", "PointwisePrefixLoss"]
