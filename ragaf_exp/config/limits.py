"""The quantities in a config, each with its allowed range and the reason for the bounds.

Schema fields and constructor parameters are annotated with them:

    def __init__(self, width: limits.Width = 128, heads: limits.Heads = 4): ...

The config is checked against them before any work. Constructors check whether values fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from ragaf_exp.config.ranges import Length, Range

_EVERY_STEP = "at ten steps per second, ten million are twelve days"
_MOMENTS = "1 would never forget the first value"
_BYTES = "10 TB, more than main memory holds"

# shares and weights
Share = Annotated[float, Range(0.0, 1.0, "a share of the whole")]
ShareBelowOne = Annotated[float, Range(0.0, 1.0, "a share below the whole", below=True)]
Part = Annotated[float, Range(0.0, 1.0, "a share; 0 would leave nothing", above=True)]
Strength = Annotated[float, Range(1e-3, 1.0, "a share of the noise schedule with at least one timestep in it")]
LossWeight = Annotated[float, Range(0.0, 10_000.0, "larger weights overflow in half precision; 0 leaves the loss out")]
Average = Annotated[float, Range(0.0, 1.0, _MOMENTS, below=True)]
Betas = Annotated[list[Average], Length(2, 2, "[0.9,0.99]")]

# training schedule
Steps = Annotated[int, Range(1, 10_000_000, _EVERY_STEP)]
StepsOrNone = Annotated[int, Range(0, 10_000_000, _EVERY_STEP)]
Interval = Annotated[int, Range(1, 1_000_000_000, "in steps; more than a stage has means never")]
StepTokens = Annotated[int, Range(0, 1 << 30, "image tokens in one optimizer step; 0 = stage.batch items")]
Batch = Annotated[int, Range(1, 65_536, "items in one optimizer step; beyond it, a step would see whole data sets")]
LearningRate = Annotated[float, Range(1e-10, 10.0, "below, float32 weights don't change; above, any optimizer diverges")]
RelativeRate = Annotated[float, Range(0.0, 1_000.0, "relative to AdamW's rate; larger updates of matrices diverge")]
Decay = Annotated[float, Range(0.0, 10.0, "times the learning rate, it is the share that a weight loses per step")]
GradientNorm = Annotated[float, Range(0.0, 10_000.0, "larger gradients come only from divergence; 0 disables clipping")]
Scale = Annotated[int, Range(1, 16, "images smaller than a sixteenth have no regions left")]
Workers = Annotated[int, Range(0, 256, "each is a process of about 1 GB")]
Megabytes = Annotated[int, Range(0, 10_000_000, _BYTES)]
Gigabytes = Annotated[float, Range(1e-2, 1_000_000.0, "a petabyte; a cache below 10 MB holds no picture set")]
Gibibytes = Annotated[float, Range(0.0, 4_096.0, "no device has more memory; 0 means all of it")]
Seconds = Annotated[float, Range(0.0, 100_000_000.0, "three years; 0 is no limit")]
Checkpoints = Annotated[int, Range(1, 100_000, "each is a copy of all trained weights")]
Seed = Annotated[int, Range(0, 2**32 - 1, "what NumPy's generators take")]

# data
Items = Annotated[int, Range(0, 100_000_000, "the order of an epoch must fit in memory")]
Year = Annotated[int, Range(2014, 2100, "COCO began in 2014")]
StrokeWidth = Annotated[float, Range(0.001, 0.2, "of the picture's side; narrower strokes vanish, wider ones fill it")]
Size = Annotated[int, Range(16, 2_048, "pixels; smaller pictures show no object, and regions are traced at 2048 at most")]
SizeOrNone = Annotated[int, Range(0, 2_048, "pixels, as data.size; 0 takes the height")]
Objects = Annotated[int, Range(1, 16, "more do not fit into a picture")]
Kelvin = Annotated[float, Range(2_000.0, 20_000.0, "colour temperatures of lights; candles have 2,000, a blue sky 20,000")]
Tint = Annotated[float, Range(0.0, 1.0, "standard deviation of green's log gain; more is no light")]
Stops = Annotated[float, Range(0.0, 4.0, "either way; more leaves black or white")]
LogGamma = Annotated[float, Range(0.0, 1.0, "either way; e is the strongest contrast of displays")]
Crops = Annotated[int, Range(0, 64, "crops of one picture; more are near-duplicates")]

# networks
Width = Annotated[int, Range(1, 8_192, "channels; the largest language models have as many")]
Channels = Annotated[int, Range(0, 1_024, "channels at full resolution; 0 leaves the layer out")]
UNetWidth = Annotated[int, Range(32, 8_192, "channels; groups of 32 are normalised, and Stable Diffusion XL has 1280")]
Layers = Annotated[int, Range(1, 96, "deeper networks do not train without changes")]
SwappedBlocks = Annotated[int, Range(0, 96, "more than any backbone has; 0 leaves all on the device")]
CopiedLayers = Annotated[int, Range(0, 96, "deeper networks do not train without changes; 0 copies a quarter")]
Blocks = Annotated[int, Range(1, 16, "residual blocks per resolution; Stable Diffusion has 2")]
Heads = Annotated[int, Range(1, 128, "heads of an attention layer; each needs channels")]
Tokens = Annotated[int, Range(2, 4_096, "of a caption, with the start token; attention cost grows with the square")]
Vocabulary = Annotated[int, Range(4, 262_144, "three special tokens and one more; the largest vocabularies have as many")]
Frequencies = Annotated[int, Range(1, 16, "each doubles the last; beyond 2^16, float32 resolves no phase")]
FrequenciesOrNone = Annotated[int, Range(0, 16, "each doubles the last; beyond 2^16, float32 resolves no phase")]
Levels = Annotated[int, Range(0, 32, "resolutions or nested regions; a picture of 2048 pixels halves 11 times")]
Temperature = Annotated[float, Range(1e-3, 100.0, "below, attention is an argmax; above, it is uniform")]
Rank = Annotated[int, Range(1, 1_024, "above, a low-rank update is no smaller than the matrix")]
Slots = Annotated[int, Range(1, 64, "attention keys per region; the cost grows with them")]
Reach = Annotated[int, Range(0, 64, "cells around a region; no grid is wider")]
Patch = Annotated[int, Range(1, 32, "pixels; a latent pixel holds 3 patch^2 channels")]
Window = Annotated[int, Range(2, 64, "tokens; the windows of MAT have 8 and 16, and 1 would attend to nothing else")]
PatchOrNone = Annotated[int, Range(0, 32, "latent cells; 0 is none")]
Tile = Annotated[int, Range(0, 8_192, "pixels; 0, or more than the picture has, means no tiling")]
Multiplier = Annotated[int, Range(1, 32, "times the base's channels; Stable Diffusion goes up to 4")]
MaskStrength = Annotated[float, Range(0.0, 1_000.0, "above, masked logits overflow in half precision; 0 is learned")]
if TYPE_CHECKING:  # a config gives lists, and constructors have tuples as defaults
    UNetWidths = Sequence[int]
    Widths = Sequence[int]
    Multipliers = Sequence[int]
    Points = Sequence[str]
    Area = Sequence[float]
    Flags = Sequence[str]
    Names = Sequence[str]
    Weights = Sequence[float]
    ObjectScale = Sequence[float]
else:
    UNetWidths = Annotated[list[UNetWidth], Length(2, 8, "[64,128]")]
    Widths = Annotated[list[Width], Length(1, 8, "[64,128]")]
    Multipliers = Annotated[list[Multiplier], Length(2, 8, "[1,2,4,4]")]
    Points = Annotated[list[str], Length(0, 64, "[in,mid]", distinct=True)]
    Area = Annotated[list[Share], Length(2, 2, "[0.0,0.5]")]
    Flags = Annotated[list[str], Length(0, 16, "[error]", distinct=True)]
    Names = Annotated[list[str], Length(1, 16, "[inpaint,remove]", distinct=True)]
    Weights = Annotated[list[Annotated[float, Range(0.0, 1e6, "relative shares")]], Length(0, 16, "[1.0,2.0]")]
    ObjectScale = Annotated[list[Part], Length(0, 2, "[0.2,0.95]")]

# diffusion and sampling
Timesteps = Annotated[int, Range(2, 10_000, "of the noise schedule; models are trained with 1000")]
Beta = Annotated[float, Range(0.0, 1.0, "the share of the signal's variance that a timestep replaces by noise", above=True)]
MinSnr = Annotated[float, Range(0.0, 1_000_000.0, "no timestep has a larger signal-to-noise ratio; 0 disables clipping")]
SnrOffset = Annotated[float, Range(0.0, 1_000.0, "added to the signal-to-noise ratio, which is 1 halfway")]
Dream = Annotated[float, Range(0.0, 100.0, "a power of the noise's scale; beyond it, next to no error is added")]
LogitMean = Annotated[float, Range(-10.0, 10.0, "of the time's logit; beyond, float32 does not separate times")]
LogitDeviation = Annotated[float, Range(1e-2, 10.0, "of the time's logit; below, one timestep is trained, above, the ends")]
TimeShift = Annotated[float, Range(1e-2, 100.0, "1 is none; Stable Diffusion 3 has 3, and beyond 100 one end remains")]
MergeScale = Annotated[float, Range(-10.0, 10.0, "adapters are trained at scale 1; far beyond, they replace the weights")]
Guidance = Annotated[float, Range(0.0, 100.0, "images saturate at far smaller values")]
SamplingSteps = Annotated[int, Range(1, 10_000, "no schedule has more timesteps")]

# sketches, regions and graphs
Blur = Annotated[float, Range(0.0, 100.0, "pixels; wider ones leave no line")]
LineBlur = Annotated[float, Range(0.5, 100.0, "pixels; narrower ones detect noise, wider ones leave no line")]
SomeBlur = Annotated[float, Range(0.0, 100.0, "pixels; wider ones leave no line", above=True)]
Ratio = Annotated[float, Range(1.0, 16.0, "of two blurs, the second wider", above=True)]
Sharpness = Annotated[float, Range(0.0, 1_000.0, "of lines; beyond it, no grey levels are left")]
Steepness = Annotated[float, Range(0.0, 10_000.0, "of a soft threshold; beyond it, the threshold is hard", above=True)]
Resolution = Annotated[int, Range(0, 4_096, "pixels of a detector's input; 0 uses the picture's own size")]
SafeSteps = Annotated[int, Range(0, 255, "of grey, which has 256 levels")]
Shift = Annotated[float, Range(0.0, 0.5, "of the picture's side; more moves strokes outside it")]
Jitter = Annotated[float, Range(0.0, 0.1, "of the picture's side; more breaks outlines")]
Specks = Annotated[float, Range(0.0, 0.1, "of the pixels; more hide the drawing")]
Grain = Annotated[float, Range(0.0, 0.5, "of full intensity; more hides the strokes")]
Regions = Annotated[int, Range(1, 1_024, "attention cost grows with the square")]
Gap = Annotated[float, Range(0.0, 0.5, "of the shorter side; wider gaps would close everything")]
Neighbours = Annotated[int, Range(1, 1_024, "no picture has more regions")]
Radius = Annotated[float, Range(0.0, 4.0, "the picture is 2 wide, its diagonal 2.8", above=True)]

# evaluation
Figures = Annotated[int, Range(1, 1_024, "pictures in one grid")]
FiguresOrNone = Annotated[int, Range(0, 1_024, "pictures in one report, a single file")]
EvalBatch = Annotated[int, Range(1, 4_096, "pictures at once; more are no faster")]
SomeItems = Annotated[int, Range(1, 1_000_000, "items scored at each validation")]
Resamples = Annotated[int, Range(1, 100_000, "of a bootstrap; a thousand determine an interval to two digits")]

# SLURM
Nodes = Annotated[int, Range(1, 10_000, "no cluster has more")]
Processes = Annotated[int, Range(1, 1_024, "on one node")]
Cores = Annotated[int, Range(1, 4_096, "of one process")]
Gpus = Annotated[int, Range(0, 64, "of one node")]
NodeMemory = Annotated[int, Range(0, 100_000, "GB of one node; 0 requests the partition's default")]
Minutes = Annotated[int, Range(1, 525_600, "a year")]
Grace = Annotated[int, Range(0, 86_400, "seconds: a day")]
Parallel = Annotated[int, Range(0, 100_000, "members of a sweep; 0 is no limit")]
