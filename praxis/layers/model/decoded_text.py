"""From the arrays of a decoder to text, on the host."""

from typing import Any

import numpy as np

from praxis import py_utils

NestedMap = py_utils.NestedMap

# Results with an axis of samples, of which the first sample is shown.
SAMPLED = ("output_ids", "decode_lengths", "original_lengths", "prefix_ids", "logprobs")


def examples(
    input_obj: Any, decode_out: NestedMap, path_text: str
) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of the text of the prefix and what there is to know about the example.

    Args:
      input_obj: Has `ids_to_strings(ids [B, T], lengths [B]) -> list of strings`.
      decode_out: Results of `LanguageModel.decode`, as arrays.
      path_text: The model, for errors.

    Raises:
      ValueError: if `output_ids` is neither [B, T] nor [B, num_samples, T].
    """
    rank = np.ndim(decode_out.output_ids)
    if rank not in (2, 3):
        raise ValueError(
            f"{path_text}: output_ids have shape {np.shape(decode_out.output_ids)}, expected "
            "[B, T] or [B, num_samples, T]."
        )
    samples = _sample_texts(input_obj, decode_out) if rank == 3 else None
    out = _first_samples(decode_out) if rank == 3 else decode_out
    decoded = input_obj.ids_to_strings(out.output_ids, out.decode_lengths)
    originals = input_obj.ids_to_strings(out.ids, out.original_lengths)
    prefixes = input_obj.ids_to_strings(out.prefix_ids, out.prefix_lengths)
    weights = out.get("eval_sample_weights")
    found = []
    for row, prefix in enumerate(prefixes):
        if weights is not None and not weights[row]:
            continue
        start, end = int(out.prefix_lengths[row]), int(out.decode_lengths[row])
        facts = {
            "prefix": prefix,
            "decoded": decoded[row],
            "original": originals[row],
            "ids": out.ids[row],
            "logprobs": out.logprobs[row],
            "prefix_length": start,
            "decode_length": end,
            "decoded_ids": out.output_ids[row, start:end],
            "decoded_substr": decoded[row][len(prefix) :],
        }
        if samples is not None:
            facts["sampled"] = samples[row]
        found.append((prefix, facts))
    return found


def sequence_examples(
    input_obj: Any, decode_out: NestedMap, path_text: str
) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of the text of the source and what there is to know about the example.

    Args:
      input_obj: Has `ids_to_strings(ids [B, T], lengths [B], key=...) -> list of strings`, with key
        "src" or "tgt".
      decode_out: Results of `SequenceModel.decode`, as arrays.
      path_text: The model, for errors.

    Raises:
      ValueError: if `output_ids` is not [B, num_samples, T].
    """
    if np.ndim(decode_out.output_ids) != 3:
        raise ValueError(
            f"{path_text}: output_ids have shape {np.shape(decode_out.output_ids)}, expected "
            "[B, num_samples, T]."
        )

    def texts(side: NestedMap, key: str) -> list[str]:
        lengths = np.sum(np.asarray(side.paddings) == 0, axis=1).astype(np.int32)
        return input_obj.ids_to_strings(side.ids, lengths, key=key)

    sources, targets = texts(decode_out.src, "src"), texts(decode_out.tgt, "tgt")
    lengths = decode_out.decode_lengths[:, 0]
    decoded = input_obj.ids_to_strings(decode_out.output_ids[:, 0], lengths, key="tgt")
    samples = _sample_texts(input_obj, decode_out, key="tgt")
    weights = decode_out.get("eval_sample_weights")
    found = []
    for row, source in enumerate(sources):
        if weights is not None and not weights[row]:
            continue
        facts = {
            "source": source,
            "prefix": source,
            "decoded": decoded[row],
            "decoded_substr": decoded[row],
            "target": targets[row],
            "ids": decode_out.output_ids[row],
            "logprobs": decode_out.logprobs[row],
            "decode_length": int(lengths[row]),
        }
        if samples is not None:
            facts["sampled"] = samples[row]
        found.append((source, facts))
    return found


def _sample_texts(input_obj: Any, decode_out: NestedMap, **options: Any) -> list[list[str]] | None:
    """The texts of all samples, by example; None if there is one sample each.

    Args:
      input_obj: As in `examples`.
      decode_out: As in `examples`, with samples.
      **options: Further arguments of `ids_to_strings`.
    """
    batch, num_samples, length = decode_out.output_ids.shape
    if num_samples == 1:
        return None
    texts = input_obj.ids_to_strings(
        decode_out.output_ids.reshape(-1, length), decode_out.decode_lengths.reshape(-1), **options
    )
    return [texts[row * num_samples : (row + 1) * num_samples] for row in range(batch)]


def _first_samples(decode_out: NestedMap) -> NestedMap:
    first = NestedMap(decode_out)
    for name in SAMPLED:
        first[name] = decode_out[name][:, 0]
    if np.ndim(decode_out.prefix_lengths) == 2:
        first.prefix_lengths = decode_out.prefix_lengths[:, 0]
    return first
