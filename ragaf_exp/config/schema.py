"""Schemas of the config groups that hold plain settings. A group with a `_target_` has its constructor as schema."""

from __future__ import annotations

from dataclasses import dataclass, field

COARSE, REFINE = "coarse", "refine"


@dataclass
class Coarse:
    """Stage 1: sketch-guided diffusion."""

    steps: int = 100
    lr: float = 3e-3
    scale: int = 1  # its images are so many times smaller than stage 2's: progressive resolution


@dataclass
class Refine:
    """Stage 2: semantic refinement, from stage 1's output noised to `strength`."""

    steps: int = 320
    lr: float = 1e-3
    strength: float = 0.9  # (0,1]: share of the noise schedule that stage 2 runs, and is trained on
    recolour: float = 0.5  # share of training starts whose regions get wrong colours, as a coarse latent has them
    region_steps: int = 500  # before them: steps of the region path alone, by region-latent prediction
    region_batch: int = 48  # items of each of those
    region_lr: float = 1.5e-3  # and their learning rate
    coarse_input: bool = False  # stage 2 also sees stage 1's latent, at every step
    coarse_steps: int = 1  # denoising steps of the stage 1 that training shows it; sampling shows its whole sample


@dataclass
class Stage:
    """Group `stage`: which stages run, and how training is paced. Steps are optimizer steps."""

    run: list[str] = field(default_factory=lambda: [COARSE, REFINE])
    batch: int = 16  # items per optimizer step, over all processes
    accumulate: int = 1  # micro-batches per optimizer step
    workers: int = 0  # loader processes; 0 = in the training process, which then keeps examples in memory
    cache_mb: int = 1024  # at most so much of them
    coarse: Coarse = field(default_factory=Coarse)
    refine: Refine = field(default_factory=Refine)
    log_every: int = 10
    validate_every: int = 400
    checkpoint_every: int = 100
    keep: int = 2  # newest checkpoints kept per stage
    curriculum: float = 0.0  # share of each stage's steps over which items grow from few regions to all; 0 = none
    max_seconds: float = 0.0  # stop after this share of wall time as if interrupted; 0 = no limit


@dataclass
class Task:
    """Group `task`: what an image is asked to follow, and how often training drops each condition."""

    caption_dropout: float = 0.1
    sketch_dropout: float = 0.1
    mirror: float = 0.0  # share of training items shown mirrored, for captions that don't tell left from right
    crops: int = 0  # windows of each training item that are shown as often as the item itself


@dataclass
class Loss:
    """Group `loss`: the weight of each loss; 0 leaves it out and computes nothing of it (but `diffusion`)."""

    diffusion: float = 1.0  # of the denoised latent
    region_latent: float = 1.0  # of what region tokens say of x0 in their regions: its mean,
    region_moments: float = 0.0  # its low frequencies,
    region_texture: float = 0.0  # its deviation and differences. See training/region_targets.py
    contrastive: float = 0.0  # of telling which regions and which caption of a batch belong together
    contrastive_until: float = 0.0  # share of stage 2's steps over which that weight falls to nothing; 0 = it stays
    coverage: float = 0.0  # of every word being attended to by some region
    entropy: float = 0.0  # of each region's attention to the words
    spans: float = 0.0  # of attending to one's own phrase: the one loss that reads annotation, where the data has it


@dataclass
class Optim:
    """Group `optim`: AdamW or Muon with it, warm-up and cosine decay, gradient clipping, EMA.

    muon: learning rate of linear layers' matrices, which Muon then trains, relative to that of AdamW; 0 = AdamW for all.
    """

    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 1e-4
    muon: float = 0.0
    warmup: int = 50
    final_lr: float = 0.02  # of the peak, at the last step
    clip: float = 1.0  # gradient norm; 0 = no clipping
    ema: float = 0.99


@dataclass
class Memory:
    """Group `memory`: what is trained in stage 2 besides the region path, and in which precision."""

    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # auto, no (float32), bf16, fp16 (with loss scaling)
    tune: str = "full"  # of a pretrained backbone, and of stage 1's modules in stage 2: full, frozen, attention or lora
    attention: str = "all"  # the layers that tune=attention and tune=lora train: all, self or cross
    lora_rank: int = 16
    checkpointing: bool = False  # activations are computed again in the backward pass
    optimizer: str = "adamw"  # adamw, or adamw8bit: moments of a byte each (bitsandbytes)
    step_in_backward: bool = False  # a weight is changed, and its gradient freed, as soon as that is there
    ema: str = "device"  # where the averaged weights lie: device, cpu, or off for none
    channels_last: bool = False  # memory order of images: faster kernels on many devices
    offload: bool = False  # networks that no training step uses rest in main memory, but for validation
    compile: bool = False  # the denoiser's blocks by torch.compile
    shard: bool = False  # several processes each hold a part of what is trained (FSDP2); tune=full alone
    features: str = "none"  # computed before training and kept on disk: none, latents, or all (of the text, too)
    budget: float = 0.0  # GiB that a run may take of its device: planned before it starts; 0 = what the device has
    enforce: bool = True  # a CUDA device gives this process no more than the budget
    force: bool = False  # start although the plan exceeds the budget or the device


METRICS = ("fd_embedded", "fd_squeezenet", "fid", "kid", "lpips", "clip", "region_clip")  # that need a network


@dataclass
class Eval:
    """Group `eval`: how much is sampled and scored, and by what. Paths of weights: "" = the library's own download."""

    test_items: int = 200  # test items, from the first; 0 = all
    batch: int = 48
    metrics: list[str] = field(default_factory=lambda: ["fd_embedded"])  # beyond those that need no network
    edges: str = "canny"  # who finds the edges of images that follow drawings: canny or pidinet
    pidinet: str = ""
    inception: str = ""
    resize: str = "clean"  # clean-fid's mode, for fid and kid
    squeezenet: str = ""
    lpips_net: str = "squeeze"  # squeeze, alex or vgg
    lpips_backbone: str = ""
    lpips_heads: str = ""
    lpips_batch: int = 32  # pairs at once
    clip_model: str = "ViT-B-32-quickgelu"
    clip_pretrained: str = "openai"  # open_clip's tag, or a file
    clip_config: str = ""  # the JSON file of another architecture
    clip_precision: str = "fp32"  # fp32, bf16 or fp16
    clip_batch: int = 64  # images or captions at once
    validation_items: int = 96  # for the condition-usage losses
    validation_metrics: bool = True  # binding and sketch fidelity of the validation grid, in the log
    grid: int = 6  # items in a validation grid
    validation_drawn: int = 0  # items drawn and scored at each validation, for learning curves; at least the grid's
    pictures: int = 8  # items of the report
    bootstrap: int = 1000  # resamples of the 95 % intervals


@dataclass
class Cache:
    """Group `cache`: sketches, regions and graphs kept on disk, for later epochs and runs. See cache/store.py."""

    enabled: bool = True
    folder: str = ""  # empty: $RAGAF_CACHE, or ragaf_exp in $XDG_CACHE_HOME or ~/.cache
    gigabytes: float = 8.0  # at most so much of them (10^9 bytes), and of eval's features; the least recently used go


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
    nodes: int = 1
    tasks: int = 1  # processes per node; with GPUs one for each
    cpus: int = 2  # per process
    gpus: int = 0  # per node
    memory_gb: int = 6  # of the host, per node (10^9 bytes)
    minutes: int = 60  # time limit; a run that needs longer is requeued and continues
    grace: int = 60  # seconds before the limit, or after preemption, in which the job saves and requeues itself
    parallel: int = 0  # members of a sweep at a time


@dataclass
class Study:
    """Group `study`: what a run is a part of. Nothing here changes what a run computes by itself."""

    member: str = ""  # what reports call it: runs of one member differ in the seed alone
    share: bool = False  # stage 1 is trained once for all runs of this name that need the same
    coarse_steps: int = 0  # of stage 1, for an experiment to refer to: its members may then have other steps
    # what members may refer to: stage 1 alone, for as long and with as many parameters as both stages together
    alone_steps: int = 0
    alone_lr: float = 3e-3
    alone_widths: list[int] = field(default_factory=lambda: [64, 128])  # of the backbone
    alone_hint: int = 64  # width of the hint
    alone_text: int = 3  # layers of the text encoder


PLAIN = {
    "stage": Stage, "task": Task, "loss": Loss, "optim": Optim, "memory": Memory, "eval": Eval, "cache": Cache,
    "cluster": Cluster, "study": Study,
}  # fmt: skip
BUILT = (
    "data", "sketch", "augment", "regions", "graph", "graph_backend", "text", "codec", "backbone", "hint", "ragaf",
    "fusion", "injection", "diffusion", "sampler", "logger",
)  # fmt: skip
NESTED = {"graph_backend": "graph/backend"}  # groups within a group: their key in the config, their folder in conf/
SCALARS = {"seed": int, "runs": str, "name": str, "init": str, "extend": bool}
