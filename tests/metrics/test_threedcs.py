from tests.metrics.scenes import as_clip, prediction
from videogpa.metrics import paper_reward, threedcs


def test_is_the_reward_of_the_paper():
    clip = as_clip(prediction())
    assert threedcs.measure(clip) == paper_reward.measure(clip)
    assert threedcs.HIGHER_IS_BETTER is paper_reward.HIGHER_IS_BETTER
