"""Schemas of the config groups that hold plain settings. A group with a `_target_` has its constructor as schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ragaf_exp.config import limits
from ragaf_exp.config.ranges import Length, OneOf

COARSE, REFINE = "coarse", "refine"
METRICS = ("fd_embedded", "fd_squeezenet", "fid", "kid", "lpips", "clip", "region_clip")  # that need a network

Stages = Annotated[list[Annotated[str, OneOf((COARSE, REFINE))]], Length(1, 2, "[coarse,refine]", distinct=True)]
Device = Annotated[str, OneOf(("auto", "cpu", "cuda"))]
Precision = Annotated[str, OneOf(("auto", "no", "bf16", "fp16"))]
Tune = Annotated[str, OneOf(("full", "frozen", "attention", "lora"))]
AttentionLayers = Annotated[str, OneOf(("all", "self", "cross"))]
Optimizer = Annotated[str, OneOf(("adamw", "adamw8bit"))]
EmaDevice = Annotated[str, OneOf(("device", "cpu", "off"))]
Features = Annotated[str, OneOf(("none", "latents", "all"))]
Metrics = Annotated[list[Annotated[str, OneOf(METRICS)]], Length(0, len(METRICS), "[fid,kid]", distinct=True)]
Edges = Annotated[str, OneOf(("canny", "pidinet"))]
Resize = Annotated[str, OneOf(("clean", "legacy_tensorflow"))]
LpipsNet = Annotated[str, OneOf(("squeeze", "alex", "vgg"))]
ClipPrecision = Annotated[str, OneOf(("fp32", "bf16", "fp16"))]


@dataclass
class Coarse:
    """Stage 1: sketch-guided diffusion."""

    steps: limits.Steps = 100
    lr: limits.LearningRate = 3e-3
    scale: limits.Scale = 1  # its images are so many times smaller than stage 2's: progressive resolution


@dataclass
class Refine:
    """Stage 2: semantic refinement, from stage 1's output noised to `strength`."""

    steps: limits.Steps = 320
    lr: limits.LearningRate = 1e-3
    strength: limits.Strength = 0.9  # (0,1]: share of the noise schedule that stage 2 runs, and is trained on
    recolour: limits.Share = 0.5  # share of training starts whose regions get wrong colours, as a coarse latent has them
    region_steps: limits.StepsOrNone = 500  # before them: steps of the region path alone, by region-latent prediction
    region_batch: limits.Batch = 48  # items of each of those
    region_lr: limits.LearningRate = 1.5e-3  # and their learning rate
    coarse_input: bool = False  # stage 2 also sees stage 1's latent, at every step
    coarse_steps: limits.SamplingSteps = 1  # of the stage 1 sample that training shows; sampling shows a whole one


@dataclass
class Stage:
    """Group `stage`: which stages run, and how training is paced. Steps are optimizer steps."""

    run: Stages = field(default_factory=lambda: [COARSE, REFINE])
    batch: limits.Batch = 16  # items per optimizer step, over all processes
    accumulate: limits.Batch = 1  # micro-batches per optimizer step
    workers: limits.Workers = 0  # loader processes; 0 = in the training process, which then keeps examples in memory
    cache_mb: limits.Megabytes = 1024  # at most so much of them
    coarse: Coarse = field(default_factory=Coarse)
    refine: Refine = field(default_factory=Refine)
    log_every: limits.Interval = 10
    validate_every: limits.Interval = 400
    checkpoint_every: limits.Interval = 100
    keep: limits.Checkpoints = 2  # newest checkpoints kept per stage
    curriculum: limits.Share = 0.0  # share of each stage's steps over which items grow from few regions to all; 0 = none
    max_seconds: limits.Seconds = 0.0  # stop after this share of wall time as if interrupted; 0 = no limit


@dataclass
class Task:
    """Group `task`: what an image is asked to follow, and how often training drops each condition."""

    caption_dropout: limits.Share = 0.1
    sketch_dropout: limits.Share = 0.1
    mirror: limits.Share = 0.0  # share of training items shown mirrored, for captions that don't tell left from right
    crops: limits.Crops = 0  # windows of each training item that are shown as often as the item itself


@dataclass
class Loss:
    """Group `loss`: the weight of each loss; 0 leaves it out and computes nothing of it (but `diffusion`)."""

    diffusion: limits.LossWeight = 1.0  # of the denoised latent
    region_latent: limits.LossWeight = 1.0  # of what region tokens say of x0 in their regions: its mean,
    region_moments: limits.LossWeight = 0.0  # its low frequencies,
    region_texture: limits.LossWeight = 0.0  # its deviation and differences. See training/region_targets.py
    contrastive: limits.LossWeight = 0.0  # of telling which regions and which caption of a batch belong together
    contrastive_until: limits.Share = 0.0  # share of stage 2's steps over which that weight falls to nothing; 0 = it stays
    coverage: limits.LossWeight = 0.0  # of every word being attended to by some region
    entropy: limits.LossWeight = 0.0  # of each region's attention to the words
    spans: limits.LossWeight = 0.0  # of attending to one's own phrase: the one loss that reads annotation, if any


@dataclass
class Optim:
    """Group `optim`: AdamW or Muon with it, warm-up and cosine decay, gradient clipping, EMA.

    muon: learning rate of linear layers' matrices, which Muon then trains, relative to that of AdamW; 0 = AdamW for all.
    """

    betas: limits.Betas = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: limits.Decay = 1e-4
    muon: limits.RelativeRate = 0.0
    warmup: limits.StepsOrNone = 50
    final_lr: limits.Share = 0.02  # of the peak, at the last step
    clip: limits.GradientNorm = 1.0  # gradient norm; 0 = no clipping
    ema: limits.Share = 0.99


@dataclass
class Memory:
    """Group `memory`: what is trained in stage 2 besides the region path, and in which precision."""

    device: Device = "auto"
    precision: Precision = "auto"  # auto: timed on a processor; no: float32; fp16: with loss scaling
    tune: Tune = "full"  # of a pretrained backbone, and of stage 1's modules in stage 2
    attention: AttentionLayers = "all"  # the layers that tune=attention and tune=lora train
    lora_rank: limits.Rank = 16
    checkpointing: bool = False  # activations are computed again in the backward pass
    optimizer: Optimizer = "adamw"  # adamw8bit: moments of a byte each (bitsandbytes)
    step_in_backward: bool = False  # a weight is changed, and its gradient freed, as soon as that is there
    ema: EmaDevice = "device"  # where the averaged weights lie; off: none
    channels_last: bool = False  # memory order of images: faster kernels on many devices
    offload: bool = False  # networks that no training step uses rest in main memory, but for validation
    compile: bool = False  # the denoiser's blocks by torch.compile
    shard: bool = False  # several processes each hold a part of what is trained (FSDP2); tune=full alone
    features: Features = "none"  # computed before training and kept on disk; all: of the text, too
    budget: limits.Gibibytes = 0.0  # GiB that a run may take of its device: planned before it starts; 0 = all
    enforce: bool = True  # a CUDA device gives this process no more than the budget
    force: bool = False  # start although the plan exceeds the budget or the device


@dataclass
class Eval:
    """Group `eval`: how much is sampled and scored, and by what. Paths of weights: "" = the library's own download."""

    test_items: limits.Items = 200  # test items, from the first; 0 = all
    batch: limits.EvalBatch = 48
    metrics: Metrics = field(default_factory=lambda: ["fd_embedded"])  # beyond those that need no network
    edges: Edges = "canny"  # who finds the edges of images that follow drawings
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
    validation_drawn: limits.Items = 0  # items drawn and scored at each validation, for learning curves
    pictures: limits.FiguresOrNone = 8  # items of the report
    bootstrap: limits.Resamples = 1000  # resamples of the 95 % intervals


@dataclass
class Cache:
    """Group `cache`: sketches, regions and graphs kept on disk, for later epochs and runs. See cache/store.py."""

    enabled: bool = True
    folder: str = ""  # empty: $RAGAF_CACHE, or ragaf_exp in $XDG_CACHE_HOME or ~/.cache
    gigabytes: limits.Gigabytes = 8.0  # of them and eval's features (10^9 bytes); the least recently used go


@dataclass
class Cluster:
    """Group `cluster`: what a job asks SLURM for; an option per memory profile. "" and 0: not asked for.

    It changes nothing that is computed, and is no part of a run's hash.
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
    """Group `study`: what a run is a part of. Nothing here changes what a run computes by itself."""

    member: str = ""  # what reports call it: runs of one member differ in the seed alone
    share: bool = False  # stage 1 is trained once for all runs of this name that need the same
    coarse_steps: limits.StepsOrNone = 0  # of stage 1, for an experiment to refer to: its members may then have other steps
    # what members may refer to: stage 1 alone, for as long and with as many parameters as both stages together
    alone_steps: limits.StepsOrNone = 0
    alone_lr: limits.LearningRate = 3e-3
    alone_widths: limits.Widths = field(default_factory=lambda: [64, 128])  # of the backbone
    alone_hint: limits.Width = 64  # width of the hint
    alone_text: limits.Layers = 3  # layers of the text encoder


PLAIN = {
    "stage": Stage, "task": Task, "loss": Loss, "optim": Optim, "memory": Memory, "eval": Eval, "cache": Cache,
    "cluster": Cluster, "study": Study,
}  # fmt: skip
BUILT = (
    "data", "sketch", "augment", "regions", "graph", "graph_backend", "text", "codec", "backbone", "hint", "ragaf",
    "fusion", "injection", "diffusion", "sampler", "logger",
)  # fmt: skip
NESTED = {"graph_backend": "graph/backend"}  # groups within a group: their key in the config, their folder in conf/
SCALARS = {"seed": limits.Seed, "runs": str, "name": str, "init": str, "extend": bool}
