"""Loads exported files by whichever diffusers runs this script, and writes their weights and outputs on fixed inputs.

    python loaded_elsewhere.py JOBS.json OUT

JOBS.json: name -> [function of this module, its arguments]. Each job writes OUT/NAME.safetensors, or OUT/NAME.txt with the
error. Imports nothing of the suite, so that an environment without it runs this too.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

PROMPT = "a red circle"


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def strokes(channels: int) -> torch.Tensor:
    image = torch.zeros(1, channels, 64, 64)
    image[..., 10:50, 20:22] = 1
    return image


def weights(net) -> dict[str, torch.Tensor]:
    return {f"state.{name}": value for name, value in net.state_dict().items()}


def unet_inputs(net) -> dict[str, torch.Tensor]:
    return {"sample": noise(1, net.config.in_channels, 8, 8), "timestep": torch.tensor([400]),
            "encoder_hidden_states": noise(1, 77, net.config.cross_attention_dim)}  # fmt: skip


def of_controlnet(net) -> dict[str, torch.Tensor]:
    down, middle = net.eval()(**unet_inputs(net), controlnet_cond=strokes(3), return_dict=False)
    return weights(net) | {f"output.{i}": value for i, value in enumerate([*down, middle])}


def of_unet(net) -> dict[str, torch.Tensor]:
    return weights(net) | {"output": net.eval()(**unet_inputs(net)).sample}


def controlnet(folder: str, file: str = "") -> dict[str, torch.Tensor]:
    if file:
        return of_controlnet(ControlNetModel.from_single_file(file, config=folder, local_files_only=True))
    return of_controlnet(ControlNetModel.from_pretrained(folder))


def adapter(folder: str) -> dict[str, torch.Tensor]:
    net = T2IAdapter.from_pretrained(folder).eval()
    return weights(net) | {f"output.{i}": x for i, x in enumerate(net(strokes(net.config.in_channels)))}


def unet(folder: str) -> dict[str, torch.Tensor]:
    return of_unet(UNet2DConditionModel.from_pretrained(folder))


def autoencoder(folder: str) -> dict[str, torch.Tensor]:
    net = AutoencoderKL.from_pretrained(folder).eval()
    latent = net.encode(strokes(3)).latent_dist.mean
    return weights(net) | {"output": latent, "output.image": net.decode(latent).sample}


def text(folder: str) -> dict[str, torch.Tensor]:
    return {"output": CLIPTextModel.from_pretrained(folder).eval()(torch.arange(77)[None]).last_hidden_state}


def lora(base: str, folder: str, name: str) -> dict[str, torch.Tensor]:
    """The outputs of a UNet with LoRA, less those without: its effect."""
    parts = {
        "unet": UNet2DConditionModel.from_pretrained(f"{base}/unet"), "vae": AutoencoderKL.from_pretrained(f"{base}/vae"),
        "text_encoder": CLIPTextModel.from_pretrained(f"{base}/text_encoder"),
        "tokenizer": CLIPTokenizer.from_pretrained(f"{base}/tokenizer"),
        "scheduler": DDPMScheduler.from_pretrained(f"{base}/scheduler"),
    }  # fmt: skip
    pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    before = of_unet(pipeline.unet)["output"]
    pipeline.load_lora_weights(folder, weight_name=name, local_files_only=True)
    after = of_unet(pipeline.unet)["output"]
    assert not torch.equal(before, after), "it changes nothing"
    return {"output": after}


def checkpoint(file: str, config: str) -> dict[str, torch.Tensor]:
    """A whole image by the pipeline of a single file, and its networks."""
    pipeline = StableDiffusionPipeline.from_single_file(file, config=config, local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "pt", "guidance_scale": 3.0}
    image = pipeline(PROMPT, generator=torch.Generator().manual_seed(0), **arguments).images
    codec = {f"vae.{name}": value for name, value in pipeline.vae.state_dict().items()}
    return weights(pipeline.unet) | codec | {"output": image}


def transformer_inputs(net) -> dict[str, torch.Tensor]:
    return {"hidden_states": noise(1, 16, net.config.in_channels), "timestep": torch.tensor([0.4]),
            "encoder_hidden_states": noise(1, 20, net.config.joint_attention_dim),
            "pooled_projections": noise(1, net.config.pooled_projection_dim)}  # fmt: skip


def of_flux(net) -> torch.Tensor:
    rows = torch.stack([torch.zeros(16), torch.arange(16) // 4, torch.arange(16) % 4], dim=1).float()
    further = {"img_ids": rows[None], "txt_ids": torch.zeros(1, 20, 3), "guidance": torch.tensor([3.5])}
    return net(**transformer_inputs(net), **further).sample


def of_sd3(net) -> torch.Tensor:
    inputs = transformer_inputs(net) | {"hidden_states": noise(1, net.config.in_channels, 8, 8)}
    return net(**inputs).sample


def flux_lora(base: str, folder: str, name: str) -> dict[str, torch.Tensor]:
    net = FluxTransformer2DModel.from_pretrained(base, subfolder="transformer").eval()
    return _adapted(FluxPipeline, net, folder, name, of_flux)


def sd3_lora(base: str, folder: str, name: str) -> dict[str, torch.Tensor]:
    net = SD3Transformer2DModel.from_pretrained(base, subfolder="transformer").eval()
    return _adapted(StableDiffusion3Pipeline, net, folder, name, of_sd3)


def _adapted(pipeline, net, folder: str, name: str, output) -> dict[str, torch.Tensor]:
    """As `lora`, for a transformer."""
    before = output(net)
    state = pipeline.lora_state_dict(folder, weight_name=name, local_files_only=True)
    state = state[0] if isinstance(state, tuple) else state
    if pipeline is FluxPipeline:
        pipeline.load_lora_into_transformer(state, network_alphas=None, transformer=net)
    else:
        pipeline.load_lora_into_transformer(state, transformer=net)
    after = output(net)
    assert not torch.equal(before, after), "it changes nothing"
    return {"output": after}


@torch.no_grad()
def main(jobs: Path, out: Path) -> None:
    for name, (function, *arguments) in json.loads(jobs.read_text()).items():
        try:
            result = globals()[function](*arguments)
        except Exception:  # the test reports it
            (out / f"{name}.txt").write_text(traceback.format_exc())
        else:
            copies = {key: value.detach().contiguous().clone() for key, value in result.items()}
            save_file(copies, out / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
