"""What a person asks for (`JobSpec`) and what it resolves to (`Job`).

`JobSpec` is the single place for every option's name, type, range, default and help text: the
command line, job files, `distributed_train.py` and the documentation are all made from it. It is
strict with people (unknown keys are refused with "did you mean"); `Job` travels between our own
processes and ignores keys that it doesn't know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Method = Literal["lora", "full"]
Precision = Literal["bf16", "fp32"]
Schedule = Literal["cosine", "linear", "constant"]
OnNodeLoss = Literal["continue", "wait", "replace", "fail"]
DataFormat = Literal["auto", "alpaca", "sharegpt", "messages", "prompt-completion", "text"]

Positive = Annotated[int, Meta(ge=1)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
PositiveRate = Annotated[float, Meta(gt=0)]
JobName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

GROUPS = ("model", "data", "training", "evaluation", "checkpoints", "output", "machines")
"""Option groups in the order in which help shows them."""


def _option(group: str, text: str, *, advanced: bool = False, **limits: Any) -> Meta:
    """The metadata of one option: its help text, its group, and the range of its values."""
    return Meta(description=text, extra={"group": group, "advanced": advanced}, **limits)


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job as a person writes it, on the command line or in a YAML or TOML file.

    Options marked `advanced` are left out of the short help. Build one from untrusted input with
    `llamaforge.spec.parse.job_spec`, which reports all mistakes at once.
    """

    model: Annotated[
        str, _option("model", "`tiny` (shipped), a local folder, or a hub name", min_length=1)
    ]
    dataset: Annotated[
        str, _option("data", "training rows: a json, jsonl, csv or parquet file", min_length=1)
    ]

    # model
    method: Annotated[Method, _option("model", "train LoRA adapters, or all weights (`full`)")] = (
        "lora"
    )
    lora_r: Annotated[int, _option("model", "LoRA rank", ge=1, le=4096)] = 8
    lora_alpha: Annotated[float, _option("model", "LoRA scale numerator", gt=0)] = 16.0
    lora_dropout: Annotated[
        float, _option("model", "dropout before LoRA A", ge=0, lt=1, advanced=True)
    ] = 0.0
    lora_targets: Annotated[
        tuple[str, ...],
        _option("model", "module names that get adapters, comma separated", advanced=True),
    ] = ("all-linear",)
    rslora: Annotated[
        bool, _option("model", "scale by alpha/sqrt(r) (rsLoRA, arXiv:2312.03732)", advanced=True)
    ] = False
    precision: Annotated[
        Precision, _option("model", "number format of weights in the forward and backward pass")
    ] = "bf16"
    gradient_checkpointing: Annotated[
        bool, _option("model", "recompute activations: less memory, slower")
    ] = False
    revision: Annotated[
        str | None, _option("model", "branch, tag or commit of a hub model", advanced=True)
    ] = None

    # data
    format: Annotated[
        DataFormat, _option("data", "layout of the rows; `auto` looks at the first ones")
    ] = "auto"
    fields: Annotated[
        dict[str, str],
        _option("data", "field mapping, for example `instruction=question,output=answer`"),
    ] = {}
    heldout: Annotated[
        str | None,
        _option("data", "held-out rows: a file, or a fraction of the dataset such as 0.05"),
    ] = None
    max_length: Annotated[
        int, _option("data", "tokens per row; longer rows are cut", ge=8, le=1_048_576)
    ] = 512
    train_on: Annotated[
        Literal["completions", "all"], _option("data", "which tokens the loss counts")
    ] = "completions"
    chat_template: Annotated[
        str | None,
        _option("data", "a Jinja file to use in place of the model's template", advanced=True),
    ] = None

    # training
    epochs: Annotated[int, _option("training", "times every row is trained", ge=1)] = 1
    max_steps: Annotated[Positive | None, _option("training", "stop after this many steps")] = None
    batch_size: Annotated[
        int, _option("training", "rows per step (with torchrun: rows per process)", ge=1)
    ] = 8
    learning_rate: Annotated[
        PositiveRate | None,
        _option("training", "peak rate; by default 2e-4 for LoRA, 2e-5 for full"),
    ] = None
    schedule: Annotated[Schedule, _option("training", "learning rate after warm-up")] = "cosine"
    warmup: Annotated[float, _option("training", "share of the steps that warm up", ge=0, lt=1)] = (
        0.03
    )
    weight_decay: Annotated[
        float, _option("training", "AdamW's decoupled weight decay", ge=0, advanced=True)
    ] = 0.0
    adam_beta1: Annotated[
        float, _option("training", "AdamW's first moment decay", ge=0, lt=1, advanced=True)
    ] = 0.9
    adam_beta2: Annotated[
        float, _option("training", "AdamW's second moment decay", ge=0, lt=1, advanced=True)
    ] = 0.999
    adam_eps: Annotated[float, _option("training", "AdamW's epsilon", gt=0, advanced=True)] = 1e-8
    max_grad_norm: Annotated[
        float, _option("training", "clip the gradient's norm; 0 never clips", ge=0, advanced=True)
    ] = 1.0
    seed: Annotated[int, _option("training", "seed of order, dropout and LoRA", ge=0, le=2**53)] = 0
    slices: Annotated[
        int,
        _option("training", "cut a step into about this many slices", ge=1, advanced=True),
    ] = 8
    slice_tokens: Annotated[
        int,
        _option("training", "most tokens of a slice, the unit of work", ge=8, advanced=True),
    ] = 512

    # evaluation
    eval_steps: Annotated[
        Positive | None,
        _option("evaluation", "held-out loss every N steps; always at start and end"),
    ] = None
    sample_prompts: Annotated[
        tuple[str, ...], _option("evaluation", "prompts to answer at every evaluation")
    ] = ()
    sample_tokens: Annotated[
        int, _option("evaluation", "longest sample answer, in tokens", ge=1, advanced=True)
    ] = 64

    # checkpoints
    checkpoint_dir: Annotated[
        str | None, _option("checkpoints", "where checkpoints go; by default in the job's folder")
    ] = None
    save_steps: Annotated[Positive | None, _option("checkpoints", "save every N steps")] = None
    save_minutes: Annotated[
        float,
        _option("checkpoints", "save every M minutes or sooner; 0: never", ge=0),
    ] = 10.0
    keep_last: Annotated[
        int, _option("checkpoints", "verified checkpoints to keep", ge=2, advanced=True)
    ] = 2
    auto_resume: Annotated[
        bool, _option("checkpoints", "continue from the newest checkpoint that verifies, if any")
    ] = False

    # output
    output_dir: Annotated[
        str | None, _option("output", "the job's folder; by default runs/NAME")
    ] = None
    name: Annotated[
        JobName | None,
        _option("output", "the job's name; by default model and method"),
    ] = None
    merge: Annotated[bool, _option("output", "also write the model with the adapter merged in")] = (
        False
    )
    tensorboard: Annotated[
        bool, _option("output", "also write TensorBoard event files", advanced=True)
    ] = False

    # machines
    nodes: Annotated[Positive | None, _option("machines", "use at most this many machines")] = None
    min_nodes: Annotated[
        int, _option("machines", "wait until this many machines are free", ge=1, advanced=True)
    ] = 1
    labels: Annotated[
        tuple[str, ...],
        _option("machines", "only machines with all of these labels", advanced=True),
    ] = ()
    min_memory: Annotated[
        float,
        _option("machines", "only machines with this many GiB of memory", ge=0, advanced=True),
    ] = 0.0
    min_gpus: Annotated[
        int, _option("machines", "only machines with this many GPUs", ge=0, advanced=True)
    ] = 0
    same_numbers: Annotated[
        bool,
        _option(
            "machines",
            "only machines that compute a canary slice to the same bits",
            advanced=True,
        ),
    ] = False
    priority: Annotated[
        int,
        _option("machines", "jobs with a higher one go first", ge=-100, le=100, advanced=True),
    ] = 0
    ranks_per_node: Annotated[
        Positive | None,
        _option("machines", "processes per machine; by default by its cores"),
    ] = None
    threads: Annotated[
        Positive | None,
        _option("machines", "threads per training process; part of the result's bits"),
    ] = None
    on_node_loss: Annotated[
        OnNodeLoss,
        _option(
            "machines",
            "when a node is lost: continue with fewer and take it back, wait for it, replace it "
            "by another, or fail",
            advanced=True,
        ),
    ] = "continue"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved job: everything that decides the result, and nothing about who computes it.

    Two jobs with equal `digest()` train the same slices in the same order to the same numbers on
    machines that compute alike. World size is not in it.
    """

    id: str
    """Unique name: `name` plus a short random part."""
    spec: JobSpec
    """What was asked for; `batch_size` there may be per process, `rows_per_step` never is."""
    rows: Size
    """Usable training rows."""
    heldout_rows: Size
    """Held-out rows; 0 without a held-out set."""
    rows_per_step: Size
    """Rows in one step, over all ranks."""
    steps_per_epoch: Size
    """Steps in one epoch; the last one may have fewer rows."""
    total_steps: Size
    """Steps of the whole job: the end of the schedule."""
    learning_rate: float
    """Peak learning rate."""
    threads: Positive
    """Compute threads per rank. Part of the kernels, so part of the result's bits."""
    data_digest: str
    """SHA-256 of the canonical training rows."""
    model_digest: str
    """SHA-256 over names and digests of the model's files."""
    version: str
    """LlamaForge version that resolved the job."""
    created: float = 0.0
    """Unix time in seconds at which the job was resolved."""

    @property
    def name(self) -> str:
        """What a person calls the job: its id."""
        return self.id
