"""3DCS, the "3D consistency score" of the paper's tables: `paper_reward` under its published name.

The tables do not define it, but the published scorer has six columns in their order, and the fifth is this reward;
in every row 3DCS - LPIPS is the mean squared error that the PSNR column allows (.009 to .011).
"""

from videogpa.metrics import paper_reward

HIGHER_IS_BETTER = False
UNIT = paper_reward.UNIT
SOURCE = "VideoGPA, arXiv 2601.23286, main table and published scorer: mean_t(MSE + LPIPS)"
NEEDS = paper_reward.NEEDS

measure = paper_reward.measure
