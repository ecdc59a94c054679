"""How far apart the steps lie that an answer depends on (Goldman et al. 2024, arXiv 2407.00402).

Diffusion is their number over the length of their longest run without another item between them, on average:
1 where all lie together, as many as they are where each lies alone. Filler is no item.
"""

import functools
import math

import numpy as np


def scattered_diffusion(needed: int, among: int) -> float:
    """That of `needed` different items of `among`, all such choices being equally likely; exact."""
    gaps, total = among - needed, math.comb(among, needed)

    def within(most: int) -> int:
        """How many choices have no run longer than `most`: by inclusion and exclusion over the gaps."""
        return sum(
            (-1) ** j * math.comb(gaps + 1, j) * math.comb(among - j * (most + 1), gaps)
            for j in range(needed // (most + 1) + 1)
        )

    counts = [within(most) - within(most - 1) for most in range(1, needed + 1)]
    return sum(needed / (k + 1) * count for k, count in enumerate(counts)) / total


@functools.lru_cache
def sorted_diffusion(needed: int, groups: int, scatter: float) -> float:
    """That of one of `groups` of items put in the order of (1 − scatter) block + scatter place, see `Spans`.

    Exact for a `scatter` of 0 and 1, else the mean of 4,096 orders drawn with one seed.
    """
    if needed == 1 or scatter in (0, 1):
        return scattered_diffusion(needed, needed * groups) if scatter else 1.0
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.permuted(np.tile(np.arange(groups), (4096, 1)), axis=1), needed, 1) / groups
    order = ((1 - scatter) * blocks + scatter * rng.random(blocks.shape)).argsort(1)
    run = longest = np.zeros(len(order))
    for item in order.T:
        run = np.where(item < needed, run + 1, 0)
        longest = np.maximum(longest, run)
    return float((needed / longest).mean())
