"""The configuration of a preference training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from videogpa.dpo.dense import Dense
from videogpa.dpo.pairs import Labels

Objective = Literal["dpo", "anchored", "safeguarded", "margin_weighted", "smoothed", "ipo", "hinge", "sft"]


class TrainConfig(BaseModel):
    """Everything that decides what the LoRA will be, and what it may cost.

    `beta=None` has it found by a calibration pass (`dpo/calibration.py`). `anchor` is read by the anchored objective
    alone, `label_smoothing` by the smoothed one. `dense` weights errors by maps of inconsistency (`dpo/dense.py`);
    `dense_shuffled` puts these weights at random places: its control. `labels="shuffled"` exchanges chosen and
    rejected in a random half of the pairs, held-out ones included: the control that tells a gain of the preferences
    from a gain of mere training. `stop_at_chosen_rise` is the relative rise of the chosen's error against the base
    (held-out pairs, or a running mean where none are held out) at which training stops and goes back to the last
    evaluation below it; None never stops. `stop_when_hopeless` stops where the doctor (`dpo/doctor.py`) finds what no
    further step can heal: a model that is lost, or a beta under which nothing is learnt. `precision` is that of the
    base model; the LoRA and all errors are float32.

    Cost: `micro_pairs` go through the model at a time (all of the batch where None), `recompute` is the share of the
    blocks whose activations are made again instead of kept, `reference_draws=K` gives every pair K fixed draws of
    timestep and noise, so that the reference's errors are computed once, `quantize` and `offload` shrink the frozen
    base (8-bit weights; blocks on the accelerator only while they run), `shard` spreads it over the processes (FSDP2),
    `optimizer="adamw_8bit"` keeps moments in 8 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: str = "wan"
    accepted_licenses: tuple[str, ...] = ()
    objective: Objective = "dpo"
    labels: Labels = "as_scored"
    beta: float | None = Field(2000.0, gt=0)
    anchor: float = Field(5.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=0.5)
    dense: Dense = "off"
    dense_shuffled: bool = False
    rank: int = Field(16, gt=0)
    alpha: float = Field(16.0, gt=0)
    steps: int = Field(100, gt=0)
    batch_pairs: int = Field(4, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    schedule: Literal["constant_with_warmup", "cosine"] = "constant_with_warmup"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    held_out_fraction: float = Field(0.1, ge=0, lt=1)
    evaluation_draws: int = Field(4, gt=0)
    evaluate_every: int = Field(20, gt=0)
    stop_at_chosen_rise: float | None = Field(0.015, gt=0)
    stop_when_hopeless: bool = True
    checkpoint_every: int = Field(25, gt=0)
    seed: int = 0

    micro_pairs: int | None = Field(None, gt=0)
    recompute: float = Field(0.0, ge=0, le=1)
    reference_draws: int | None = Field(None, gt=0, le=100_000)
    quantize: Literal["int8"] | None = None
    offload: bool = False
    shard: bool = False
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
