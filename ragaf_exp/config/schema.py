"""Schemas of the config groups with plain settings. A group with a `_target_` has its constructor as schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ragaf_exp.config import limits
from ragaf_exp.config.ranges import Length, OneOf

COARSE, REFINE = "coarse", "refine"
METRICS = (  # those that need a network
    "fd_embedded", "fd_squeezenet", "fid", "kid", "lpips", "clip", "region_clip", "u_ids", "p_ids", "u_ids_embedded",
    "p_ids_embedded",
)  # fmt: skip
MOST_STAGES = 9
Stages = Annotated[list[str], Length(1, MOST_STAGES, f"[{COARSE},{REFINE}]", distinct=True)]
Device = Annotated[str, OneOf(("auto", "cpu", "cuda"))]
Precision = Annotated[str, OneOf(("auto", "no", "bf16", "fp16"))]
Tune = Annotated[str, OneOf(("full", "frozen", "attention", "lora"))]
AttentionLayers = Annotated[str, OneOf(("all", "self", "cross"))]
Optimizer = Annotated[str, OneOf(("adamw", "adamw8bit"))]
EmaDevice = Annotated[str, OneOf(("device", "cpu", "off"))]
Base = Annotated[str, OneOf(("float32", "bfloat16", "float8", "int8", "nf4"))]
Features = Annotated[str, OneOf(("none", "latents", "all"))]
Metrics = Annotated[list[Annotated[str, OneOf(METRICS)]], Length(0, len(METRICS), "[fid,kid]", distinct=True)]
Edges = Annotated[str, OneOf(("canny", "pidinet"))]
Resize = Annotated[str, OneOf(("clean", "legacy_tensorflow"))]
LpipsNet = Annotated[str, OneOf(("squeeze", "alex", "vgg"))]
ClipPrecision = Annotated[str, OneOf(("fp32", "bf16", "fp16"))]


@dataclass
class StageSettings:
    """Keys `stage.NAME`: one stage of training and sampling. Further stages are further names that state `starts_from`."""

    starts_from: str | None = None  # the stage whose weights and samples it starts from; null: new weights, and noise
    regions: bool = False  # it has and trains the region path
    steps: limits.Steps = 100
    lr: limits.LearningRate = 1e-3
    scale: limits.Scale = 1  # downsampling factor of its images relative to those of the data: progressive resolution
    # of a stage that starts from another:
    strength: limits.Strength = 0.9  # (0,1]: share of the noise schedule that it samples over and is trained on
    recolour: limits.Share = 0.0  # share of training starts with wrong colours in their regions, as in coarse latents
    coarse_input: bool = False  # it also gets the other stage's latent as input, at every step
    coarse_steps: limits.SamplingSteps = 1  # sampling steps of that latent in training; inference samples it in full
    # of a stage with regions:
    region_steps: limits.StepsOrNone = 0  # earlier steps that train only the region path, by region-latent prediction
    region_batch: limits.Batch = 48  # items per such step
    region_lr: limits.LearningRate = 1.5e-3  # learning rate of such steps


@dataclass
class Coarse(StageSettings):
    """Sketch-guided diffusion."""

    lr: limits.LearningRate = 3e-3


@dataclass
class Refine(StageSettings):
    """Semantic refinement by the region path, from the output of `coarse` noised to `strength`."""

    starts_from: str | None = COARSE
    regions: bool = True
    steps: limits.Steps = 320
    recolour: limits.Share = 0.5
    region_steps: limits.StepsOrNone = 500


@dataclass
class Stage:
    """Group `stage`: the stages that run, and their training schedule. Steps are optimizer steps."""

    run: Stages = field(default_factory=lambda: [COARSE, REFINE])  # a chain: each starts from another, the first from none
    batch: limits.Batch = 16  # items per optimizer step, over all processes
    tokens: limits.StepTokens = 0  # image tokens per optimizer step, in place of `batch`: small images, larger batches
    accumulate: limits.Batch = 1  # micro-batches per optimizer step
    workers: limits.Workers = 0  # loader processes; 0 = in the training process, which then caches examples in memory
    cache_mb: limits.Megabytes = 1024  # size of that cache
    coarse: Coarse = field(default_factory=Coarse)
    refine: Refine = field(default_factory=Refine)
    log_every: limits.Interval = 10
    validate_every: limits.Interval = 400
    checkpoint_every: limits.Interval = 100
    keep: limits.Checkpoints = 2  # newest checkpoints kept per stage
    curriculum: limits.Share = 0.0  # share of each stage's steps over which items grow from few regions to all; 0 = none
    max_seconds: limits.Seconds = 0.0  # wall time after which the run stops as if interrupted; 0 = no limit


@dataclass
class Loss:
    """Group `loss`: the weight of each loss; 0 leaves it out and skips its computation (except `diffusion`)."""

    diffusion: limits.LossWeight = 1.0  # denoising
    region_latent: limits.LossWeight = 1.0  # region tokens predict x0 in their regions: its mean,
    region_moments: limits.LossWeight = 0.0  # its low frequencies,
    region_texture: limits.LossWeight = 0.0  # its deviation and differences. See training/losses/region_targets.py
    contrastive: limits.LossWeight = 0.0  # matching of regions and captions within a batch
    contrastive_until: limits.Share = 0.0  # share of a stage's steps over which that weight decays to 0; 0 = no decay
    coverage: limits.LossWeight = 0.0  # every token is attended to by some region
    entropy: limits.LossWeight = 0.0  # of each region's attention over the tokens
    spans: limits.LossWeight = 0.0  # each region attends to its phrase: the only loss that needs annotation


@dataclass
class Optim:
    """Group `optim`: AdamW, optionally Muon for matrices, warm-up and cosine decay, gradient clipping, EMA."""

    betas: limits.Betas = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: limits.Decay = 1e-4
    muon: limits.RelativeRate = 0.0  # Muon's learning rate for matrices of linear layers over AdamW's; 0 = AdamW for all
    warmup: limits.StepsOrNone = 50
    final_lr: limits.Share = 0.02  # of the peak, at the last step
    clip: limits.GradientNorm = 1.0  # gradient norm; 0 = no clipping
    ema: limits.Share = 0.99


@dataclass
class Memory:
    """Group `memory`: device, precision, the parameters trained besides the region path, memory savers."""

    device: Device = "auto"
    precision: Precision = "auto"  # auto: timed on a processor; no: float32; fp16: with loss scaling
    tune: Tune = "full"  # which weights of a pretrained backbone, and of earlier stages' modules in later ones, are trained
    attention: AttentionLayers = "all"  # the layers that tune=attention and tune=lora train
    lora_rank: limits.Rank = 16
    merge: str = ""  # a LoRA file that is merged into the backbone before stage 1; kohya's, diffusers' or peft's names
    merge_scale: limits.MergeScale = 1.0
    base: Base = "float32"  # storage of the frozen linear layers of a pretrained transformer
    checkpointing: bool = False  # gradient checkpointing: recompute activations in the backward pass
    offload_checkpoints: bool = False  # with checkpointing: the blocks' inputs wait in main memory for the backward pass
    optimizer: Optimizer = "adamw"  # adamw8bit: moments of one byte each (bitsandbytes)
    step_in_backward: bool = False  # update each weight and free its gradient as soon as the gradient is computed
    ema: EmaDevice = "device"  # where the averaged weights are stored; off: none
    channels_last: bool = False  # memory format of images: faster kernels on many devices
    offload: bool = False  # keep networks that no training step uses in main memory, except for validation
    swap: limits.SwappedBlocks = 0  # last blocks of the backbone whose frozen weights are in main memory until their turn
    compile: bool = False  # torch.compile for the denoiser's blocks
    shard: bool = False  # shard trained parameters over processes (FSDP2); with tune=full only
    features: Features = "none"  # encoder outputs computed before training and cached on disk; all: text too
    budget: limits.Gibibytes = 0.0  # GiB of device memory that a run may use, checked before it starts; 0 = all
    enforce: bool = True  # limit this process's CUDA allocations to the budget
    force: bool = False  # start although the predicted use exceeds the budget or the device


@dataclass
class Eval:
    """Group `eval`: the amount sampled and scored, and the networks used. Weight paths: "" = the library's download."""

    test_items: limits.Items = 200  # test items, from the first; 0 = all
    batch: limits.EvalBatch = 48
    metrics: Metrics = field(default_factory=lambda: ["fd_embedded"])  # in addition to those that need no network
    edges: Edges = "canny"  # edge detector for images that follow drawings
    pidinet: str = ""
    inception: str = ""
    resize: Resize = "clean"  # clean-fid's mode, for fid and kid
    squeezenet: str = ""
    lpips_net: LpipsNet = "squeeze"
    lpips_backbone: str = ""
    lpips_heads: str = ""
    lpips_batch: limits.EvalBatch = 32  # pairs at once
    clip_model: str = "ViT-B-32-quickgelu"
    clip_pretrained: str = "openai"  # open_clip's tag, or a file
    clip_config: str = ""  # the JSON file of another architecture
    clip_precision: ClipPrecision = "fp32"
    clip_batch: limits.EvalBatch = 64  # images or captions at once
    validation_items: limits.SomeItems = 96  # for the condition-usage losses
    validation_metrics: bool = True  # binding and sketch fidelity of the validation grid, in the log
    grid: limits.Figures = 6  # items in a validation grid
    validation_drawn: limits.Items = 0  # items sampled and scored at each validation, for learning curves
    pictures: limits.FiguresOrNone = 8  # items of the report
    prompted_items: limits.Items = 64  # test items, from the first, that are also sampled with region prompts; 0 = none
    bootstrap: limits.Resamples = 1000  # resamples of the 95 % intervals


@dataclass
class Cache:
    """Group `cache`: sketches, regions and graphs on disk, for later epochs and runs. See store/entries.py."""

    enabled: bool = True
    folder: str = ""  # empty: $RAGAF_CACHE, or ragaf_exp in $XDG_CACHE_HOME or ~/.cache
    gigabytes: limits.Gigabytes = 8.0  # 10^9 bytes, including eval's features; least recently used entries are evicted


@dataclass
class Cluster:
    """Group `cluster`: resources that a job requests from SLURM; one option per memory profile. "" and 0: not requested.

    It does not affect results and is not part of a run's hash.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    setup: list[str] = field(default_factory=list)  # shell lines before Python, as "module load cuda/12.4"
    extra: list[str] = field(default_factory=list)  # further options of sbatch, as "--exclude=node7"
    nodes: limits.Nodes = 1
    tasks: limits.Processes = 1  # processes per node; with GPUs one for each
    cpus: limits.Cores = 2  # per process
    gpus: limits.Gpus = 0  # per node
    memory_gb: limits.NodeMemory = 6  # of the host, per node (10^9 bytes); 0: the partition's default
    minutes: limits.Minutes = 60  # time limit; a run that needs longer is requeued and continues
    grace: limits.Grace = 60  # seconds before the limit, or after preemption, in which the job saves and requeues itself
    parallel: limits.Parallel = 0  # members of a sweep at a time


@dataclass
class Study:
    """Group `study`: the study that a run belongs to. Nothing here affects a run's results directly."""

    member: str = ""  # name in reports: runs of one member differ only in the seed
    share: bool = False  # train stage 1 once for all runs of this name that need the same one
    coarse_steps: limits.StepsOrNone = 0  # stage 1's steps, for an experiment whose members differ in theirs
    # for members to refer to: stage 1 alone, with as many steps and parameters as both stages together
    alone_steps: limits.StepsOrNone = 0
    alone_lr: limits.LearningRate = 3e-3
    alone_widths: limits.Widths = field(default_factory=lambda: [64, 128])  # of the backbone
    alone_hint: limits.Width = 64  # width of the hint
    alone_text: limits.Layers = 3  # layers of the text encoder


PLAIN = {
    "stage": Stage, "loss": Loss, "optim": Optim, "memory": Memory, "eval": Eval, "cache": Cache,
    "cluster": Cluster, "study": Study,
}  # fmt: skip
BUILT = (
    "task", "data", "sketch", "augment", "regions", "graph", "graph_backend", "text", "codec", "backbone", "hint", "ragaf",
    "fusion", "injection", "diffusion", "sampler", "logger",
)  # fmt: skip
NESTED = {"graph_backend": "graph/backend"}  # nested groups: key in the config -> folder in conf/
SCALARS = {"seed": limits.Seed, "runs": str, "name": str, "init": str, "extend": bool}
