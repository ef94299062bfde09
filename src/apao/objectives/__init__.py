"""Training losses, one family per module. Importing a module of this package registers its objectives."""

from apao.objectives.losses import PairwisePrefixLoss, PointwisePrefixLoss

__all__ = ["PairwisePrefixLoss", "PointwisePrefixLoss"]
