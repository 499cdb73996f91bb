"""3DCS, the "3D consistency score" of the paper's tables: `paper_reward` under its published name.

The tables do not define it, but the published scorer has six columns in the same order, and the fifth is this reward;
in every row 3DCS - LPIPS is .009 to .012, a mean squared error that fits the row's PSNR.
"""

from videogpa.metrics import paper_reward

HIGHER_IS_BETTER = False
UNIT = paper_reward.UNIT
SOURCE = "VideoGPA, arXiv 2601.23286, main table and published scorer: mean_t(MSE + LPIPS)"
NEEDS = paper_reward.NEEDS

measure = paper_reward.measure
