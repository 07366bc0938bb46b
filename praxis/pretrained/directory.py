"""Reads a model from a directory of the Hugging Face hub's layout."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from praxis import base_layer, pax_fiddle
from praxis.pretrained import table
from praxis.pretrained.families import FAMILIES
from praxis.pretrained.settings import Settings

LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


class Pretrained(NamedTuple):
    """A model and its weights.

    Attributes:
      config: Of the model, without a task; e.g. the `lm_tpl` of a `LanguageModel`.
      variables: `{"params": ...}` of it, NumPy arrays.
    """

    config: LayerTpl
    variables: dict[str, Any]


def from_tensors(
    settings: Mapping[str, Any], tensors: Mapping[str, Any], *, repeated: bool = True
) -> Pretrained:
    """Makes a model of the tensors of a file.

    Args:
      settings: What the config.json beside the file says; its `model_type` has to be among
        `FAMILIES`.
      tensors: NumPy arrays, or what converts to these, by name.
      repeated: Whether layers are scanned over (`StackedTransformerRepeated`), which compiles
        faster, or unrolled.

    Returns:
      The config of the model and its variables.

    Raises:
      ValueError: if the family is unknown, a setting cannot be expressed, or tensors are missing,
        left over or of the wrong shape.
    """
    model_type = str(settings.get("model_type"))
    if model_type not in FAMILIES:
        raise ValueError(
            f"config.json has model_type = {model_type!r}, expected one of {sorted(FAMILIES)}."
        )
    family = FAMILIES[model_type]
    wrapped = Settings(settings)
    config = family.config(wrapped, repeated)
    model = base_layer.instantiate(config)
    hparams = model.abstract_init_with_metadata(
        **family.example_inputs(jnp.zeros([1, 2], jnp.int32))
    )
    weights = table.load(tensors, family.table(wrapped), family.sizes(wrapped), hparams)
    return Pretrained(config, weights)


def from_directory(directory: str | pathlib.Path, *, repeated: bool = True) -> Pretrained:
    """Reads config.json and the *.safetensors files of a directory.

    Args:
      directory: The directory, e.g. a snapshot that the hub's own tools downloaded.
      repeated: As in `from_tensors`.

    Returns:
      As `from_tensors`.

    Raises:
      FileNotFoundError: if one of the files is missing.
      ImportError: without the package safetensors.
    """
    try:
        from safetensors.flax import load_file
    except ImportError as error:
        raise ImportError(
            "Reading pretrained weights needs the package safetensors: pip install 'pax[hf]'."
        ) from error
    folder = pathlib.Path(directory)
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").exists():
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no folder"
        raise FileNotFoundError(
            f"{folder} needs a config.json and *.safetensors files, but there is {found}."
        )
    settings = json.loads((folder / "config.json").read_text())
    tensors = {name: array for file in files for name, array in load_file(file).items()}
    return from_tensors(settings, tensors, repeated=repeated)
