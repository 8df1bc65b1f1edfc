"""Rivals of the paper that no good package has, each from its own paper, on a page.

`step(closure)` is called as with any optimizer of torch, but for one thing: an optimizer that
evaluates the loss elsewhere calls `closure(backward=False)`, which returns the loss of the same
batch at the parameters as they are then, and leaves the gradients as they are; and one that wants
the gradients of the halves of a batch calls `closure(half=0)` and `closure(half=1)`.

`signals` and `variants` are ZENITH itself, with another signal or another mean.
"""

from experiments.rivals.dowg import DoWG
from experiments.rivals.gen import GeN
from experiments.rivals.l4 import L4
from experiments.rivals.lqa import LQA
from experiments.rivals.pal import PAL
from experiments.rivals.sps import SPS

__all__ = ["L4", "LQA", "PAL", "SPS", "DoWG", "GeN"]
