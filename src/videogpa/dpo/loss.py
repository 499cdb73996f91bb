"""Preference losses on per-sample mean prediction errors, in float32, one value per sample.

An error is the mean squared prediction error of one video at one timestep; lower means that the model finds
the video more likely. beta multiplies mean errors and carries no 1/2: diffusers' `beta_dpo` 2500 is 1250
here.
"""

from torch.nn.functional import logsigmoid, relu

from videogpa.tensors import PerSample


def preference_logits(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
) -> PerSample:
    """-beta [(e_w - e_w^ref) - (e_l - e_l^ref)]: positive where the policy moved towards the chosen video."""
    chosen = implicit_reward(chosen_error, chosen_reference_error, beta)
    return chosen - implicit_reward(rejected_error, rejected_reference_error, beta)


def diffusion_dpo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
) -> PerSample:
    """-log sigmoid(-beta [(e_w - e_w^ref) - (e_l - e_l^ref)]).

    Diffusion-DPO, Wallace et al. 2023 (arXiv 2311.12908), eq. 14, with T omega(lambda_t) absorbed in beta.
    """
    return -logsigmoid(
        preference_logits(
            chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
        )
    )


def anchored_dpo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
    anchor: float,
) -> PerSample:
    """-log sigmoid(-beta [(e_w - e_w^ref) - (e_l - e_l^ref) + anchor relu(e_w - e_w^ref)]).

    DPO-Positive, Pal et al. 2024 (arXiv 2402.13228), eq. 3, on diffusion errors: winning by worsening the
    rejected video alone no longer pays once the chosen one gets worse than the reference draws it.
    """
    logits = preference_logits(
        chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
    )
    return -logsigmoid(logits - beta * anchor * relu(chosen_error.float() - chosen_reference_error.float()))


def safeguarded_dpo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
    rejected_scale: PerSample,
) -> PerSample:
    """The loss of `diffusion_dpo_loss`; its gradient pushes the rejected error up only `rejected_scale` times as much.

    Diffusion-SDPO, Fu et al. 2025 (arXiv 2511.03317): with `diffusion.safe_scale` the chosen error does not rise.
    """
    held = rejected_error.detach()
    return diffusion_dpo_loss(
        chosen_error,
        held + rejected_scale * (rejected_error - held),
        chosen_reference_error,
        rejected_reference_error,
        beta,
    )


def margin_weighted_dpo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
    margin: PerSample,
) -> PerSample:
    """-margin log sigmoid(z), z the preference logits: pairs that were told apart more clearly count more.

    Reward-weighted preference losses, as in Adler et al. 2024 (arXiv 2406.11704, section 3.3.2) the reward gap enters
    the loss; here it is a plain weight.

    Args:
        margin: 1 on average over the training pairs, so that the learning rate keeps its meaning.
    """
    return margin * diffusion_dpo_loss(
        chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
    )


def smoothed_dpo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
    smoothing: float,
) -> PerSample:
    """-(1 - s) log sigmoid(z) - s log sigmoid(-z), z the preference logits and s the share of labels taken to be wrong.

    Conservative DPO, Mitchell 2023 ("A note on DPO with noisy preferences"), eq. 3: it stops pulling once
    sigmoid(z) = 1 - s.
    """
    logits = preference_logits(
        chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
    )
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


def ipo_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
) -> PerSample:
    """(z - 1/2)^2, z the preference logits: every pair is drawn to one margin, 1 / (2 beta) in mean errors.

    IPO, Azar et al. 2023 (arXiv 2310.12036), eq. 17, times beta^2, so that beta does not scale the gradient twice.
    """
    logits = preference_logits(
        chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
    )
    return (logits - 0.5).square()


def hinge_loss(
    chosen_error: PerSample,
    rejected_error: PerSample,
    chosen_reference_error: PerSample,
    rejected_reference_error: PerSample,
    beta: float,
) -> PerSample:
    """relu(1 - z), z the preference logits: a pair that is won by 1 pulls no more.

    SLiC-HF, Zhao et al. 2023 (arXiv 2305.10425), against the reference as in RSO, Liu et al. 2023 (arXiv 2309.06657).
    """
    logits = preference_logits(
        chosen_error, rejected_error, chosen_reference_error, rejected_reference_error, beta
    )
    return relu(1 - logits)


def sft_loss(chosen_error: PerSample) -> PerSample:
    """The error itself: supervised fine-tuning on the chosen videos."""
    return chosen_error.float()


def implicit_reward(error: PerSample, reference_error: PerSample, beta: float) -> PerSample:
    """-beta (e - e^ref): the reward that the policy expresses relative to its reference."""
    return -beta * (error.float() - reference_error.float())


def implicit_accuracy(logits: PerSample) -> PerSample:
    """1 where the policy, against the reference, prefers the chosen video, 0 where not, 1/2 for a tie."""
    return (logits > 0).float() + 0.5 * (logits == 0).float()
