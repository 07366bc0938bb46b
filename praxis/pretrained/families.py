"""The families of models that can be read, by the `model_type` of their config.json."""

from collections.abc import Mapping

from praxis.pretrained import bert, gpt2, llama, t5
from praxis.pretrained.family import Family

FAMILIES: Mapping[str, Family] = {
    "bert": bert.FAMILY,
    "gemma": llama.GEMMA,
    "gpt2": gpt2.FAMILY,
    "llama": llama.LLAMA,
    "mistral": llama.MISTRAL,
    "mixtral": llama.MIXTRAL,
    "t5": t5.FAMILY,
}
