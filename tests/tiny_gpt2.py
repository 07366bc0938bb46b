"""A tiny GPT-2, as the Hugging Face hub keeps one."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

SETTINGS = {
    "model_type": "gpt2",
    "n_embd": 6,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 7,
    "vocab_size": 11,
}


def tensors() -> dict[str, np.ndarray]:
    """A tiny GPT-2 as its file has it."""
    shapes = {
        "transformer.wte.weight": [11, 6],
        "transformer.wpe.weight": [7, 6],
        "transformer.ln_f.weight": [6],
        "transformer.ln_f.bias": [6],
    }
    for i in range(2):
        shapes |= {
            f"transformer.h.{i}.{name}": shape
            for name, shape in {
                "ln_1.weight": [6],
                "ln_1.bias": [6],
                "attn.c_attn.weight": [6, 18],
                "attn.c_attn.bias": [18],
                "attn.c_proj.weight": [6, 6],
                "attn.c_proj.bias": [6],
                "ln_2.weight": [6],
                "ln_2.bias": [6],
                "mlp.c_fc.weight": [6, 24],
                "mlp.c_fc.bias": [24],
                "mlp.c_proj.weight": [24, 6],
                "mlp.c_proj.bias": [6],
            }.items()
        }
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def save(folder: pathlib.Path) -> None:
    """Writes config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    save_file(tensors(), folder / "model.safetensors")
