"""Connectionist temporal classification: the loss, and which frame belongs to which label.

Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with
Recurrent Neural Networks", 2006. Shapes: B is the batch, T the frames, N the labels of an example,
K the classes, the blank among them. Memory is that of some arrays [T, B, N] beside the inputs.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Shaped

from praxis import py_utils


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CtcAlignments:
    """What the loss is summed from, and the labels frame by frame.

    After frame t, n labels have begun. The last symbol is then either label n ("emit", at index
    n - 1) or a blank after it ("phi", at index n).

    Attributes:
      state_logprobs: [T, B, N + 1], for each n the sum of forward and backward log-probabilities
        of both cases; the probability of frame t is in both.
      alignment: [B, T], the n of each frame along one path: 0 before the first label. Frames that
        are padding have that of all labels.
      logalpha_phi: [T, B, N + 1], log-probability of the frames up to t.
      logalpha_emit: [T, B, N], likewise.
      logbeta_phi: [T, B, N + 1], log-probability of the frames from t on.
      logbeta_emit: [T, B, N], likewise.
    """

    state_logprobs: Float[Array, "T B _"]
    alignment: Int[Array, "B T"]
    logalpha_phi: Float[Array, "T B _"]
    logalpha_emit: Float[Array, "T B N"]
    logbeta_phi: Float[Array, "T B _"]
    logbeta_emit: Float[Array, "T B N"]


def ctc_loss_with_alignments(
    logits: Float[Array, "B T K"],
    logitpaddings: Shaped[Array, "..."],
    labels: Int[Array, "..."],
    labelpaddings: Shaped[Array, "..."],
    blank_id: int = 0,
    logepsilon: float = -1e5,
) -> tuple[Float[Array, " B"], CtcAlignments]:
    """Computes the negative log-probability of labels, and aligns them to the frames.

    The alignment is greedy: from frame to frame the likelier of staying and going on, within what
    leaves a frame for each of the labels to come.

    Args:
      logits: [B, T, K]. What is computed is float32 at least.
      logitpaddings: [B, T], 1 marks padding, all of it after the frames.
      labels: [B, N].
      labelpaddings: [B, N], 1 marks padding, all of it after the labels.
      blank_id: The class that stands for no label.
      logepsilon: What stands for the logarithm of 0.

    Returns:
      The loss of each example, [B], about `-logepsilon` or more where there are too few frames; and
      the alignments.

    Raises:
      ValueError: if the shapes do not go together or `blank_id` is no class.
    """
    logitpaddings, labelpaddings = _check_arguments(
        logits, logitpaddings, labels, labelpaddings, blank_id
    )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    options = {"blank_id": blank_id, "log_epsilon": logepsilon}
    loss, logalpha_phi, logalpha_emit = optax.ctc_loss_with_forward_probs(
        logits, logitpaddings, labels, labelpaddings, **options
    )
    # Backwards in time is forwards over what is reversed. Labels keep their padding at the end.
    label_lengths = jnp.sum(labelpaddings == 0, axis=1, dtype=jnp.int32)
    _, logbeta_phi, logbeta_emit = optax.ctc_loss_with_forward_probs(
        logits[:, ::-1],
        logitpaddings[:, ::-1],
        py_utils.flip_sequence(labels, label_lengths),
        labelpaddings,
        **options,
    )
    logbeta_phi = _reverse_states(logbeta_phi, label_lengths + 1, logepsilon)
    logbeta_emit = _reverse_states(logbeta_emit, label_lengths, logepsilon)

    state_logprobs = _merge_symbols(logalpha_phi, logalpha_emit, logepsilon) + _merge_symbols(
        logbeta_phi, logbeta_emit, logepsilon
    )
    frames = jnp.sum(logitpaddings == 0, axis=1, dtype=jnp.int32)
    alignments = CtcAlignments(
        state_logprobs=state_logprobs,
        alignment=_align_greedily(state_logprobs, frames, label_lengths),
        logalpha_phi=logalpha_phi,
        logalpha_emit=logalpha_emit,
        logbeta_phi=logbeta_phi,
        logbeta_emit=logbeta_emit,
    )
    return loss, alignments


def _check_arguments(
    logits: Float[Array, "B T K"],
    logitpaddings: Shaped[Array, "..."],
    labels: Int[Array, "..."],
    labelpaddings: Shaped[Array, "..."],
    blank_id: int,
) -> tuple[Float[Array, "B T"], Float[Array, "B N"]]:
    """Refuses shapes that do not go together; returns both paddings in float32."""
    batch, num_frames, num_classes = logits.shape
    if (
        logitpaddings.shape != (batch, num_frames)
        or labels.shape != (batch, *labels.shape[1:2])
        or labelpaddings.shape != labels.shape
        or 0 in labels.shape
    ):
        raise ValueError(
            f"CTC: logits have shape {logits.shape}, logitpaddings {logitpaddings.shape}, labels "
            f"{labels.shape} and labelpaddings {labelpaddings.shape}; expected [B, T, K], [B, T], "
            "[B, N] and [B, N], with N at least 1."
        )
    if not 0 <= blank_id < num_classes:
        raise ValueError(
            f"CTC: blank_id is {blank_id}, expected a class from 0 to K - 1 = {num_classes - 1}."
        )
    return logitpaddings.astype(jnp.float32), labelpaddings.astype(jnp.float32)


def _reverse_states(
    states: Float[Array, "T B S"], counts: Int[Array, " B"], fill: float
) -> Float[Array, "T B S"]:
    """Reverses time, and the first `counts` states; the others become `fill`."""
    reversed_states = jax.vmap(py_utils.flip_sequence, (0, None))(states[::-1], counts)
    keep = py_utils.sequence_mask(counts, states.shape[-1])[jnp.newaxis]
    return jnp.where(keep, reversed_states, fill)


def _merge_symbols(
    phi: Float[Array, "T B S"], emit: Float[Array, "T B N"], logepsilon: float
) -> Float[Array, "T B S"]:
    """Log-probability that n labels have begun, whatever the last symbol is."""
    emit = jnp.pad(emit, [(0, 0), (0, 0), (1, 0)], constant_values=logepsilon)
    return jnp.logaddexp(emit, phi)


def _align_greedily(
    state_logprobs: Float[Array, "T B S"], frames: Int[Array, " B"], label_lengths: Int[Array, " B"]
) -> Int[Array, "B T"]:
    """The likeliest number of labels at each frame, given that of the frame before."""
    num_frames, batch, num_states = state_logprobs.shape
    states = jnp.arange(num_states)[jnp.newaxis]

    def go_on(
        before: Int[Array, " B"], inputs: tuple[Int[Array, ""], Float[Array, "B S"]]
    ) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
        time, logprobs = inputs
        least = jnp.clip(time - (frames - label_lengths), 0, label_lengths)
        least = jnp.maximum(least, before)[:, jnp.newaxis]
        allowed = (states >= least) & (states <= before[:, jnp.newaxis] + 1)
        state = jnp.argmax(jnp.where(allowed, logprobs, -jnp.inf), axis=1).astype(jnp.int32)
        return state, state

    times = jnp.arange(num_frames)
    _, alignment = jax.lax.scan(go_on, jnp.zeros([batch], jnp.int32), (times, state_logprobs))
    return alignment.T


def is_valid_ctc_seq(
    logitpaddings: Shaped[Array, "B T"],
    labels: Int[Array, "B N"],
    labelpaddings: Shaped[Array, "B N"],
) -> Float[Array, " B"]:
    """Whether there are frames enough for all labels, and for a blank between equal ones.

    Args:
      logitpaddings: [B, T], 1 marks padding.
      labels: [B, N].
      labelpaddings: [B, N], 1 marks padding, all of it after the labels.

    Returns:
      [B], 1 or 0.
    """
    frames = jnp.sum(logitpaddings == 0, axis=1)
    is_label = labelpaddings == 0
    # Padding often holds the same number all over, and needs no blanks.
    repeats = (labels[:, 1:] == labels[:, :-1]) & is_label[:, 1:]
    needed = jnp.sum(is_label, axis=1) + jnp.sum(repeats, axis=1)
    return (needed <= frames).astype(jnp.float32)


def frame_alignment_to_label_alignment(
    frame_alignment: Int[Array, "B T"], frame_paddings: Shaped[Array, "B T"]
) -> tuple[Int[Array, "B T"], Int[Array, " B"]]:
    """Finds the frame where each label starts.

    Args:
      frame_alignment: [B, T], the label of each frame, counted from 1; 0 for none.
      frame_paddings: [B, T], 1 marks padding.

    Returns:
      The first frames of the labels, [B, T], with 0 after the last one; and the number of labels,
      [B]. For the row [0, 0, 0, 0, 1, 1, 2, 2, 3] they are [4, 6, 8, 0, ...] and 3.
    """
    alignment = jnp.where(frame_paddings == 0, frame_alignment, 0)
    highest = jax.lax.cummax(jnp.pad(alignment, [(0, 0), (1, 0)]), axis=1)
    starts = highest[:, 1:] > highest[:, :-1]
    counts = jnp.sum(starts, axis=1, dtype=jnp.int32)
    num_frames = alignment.shape[1]
    frames = jnp.where(starts, jnp.arange(num_frames, dtype=jnp.int32)[jnp.newaxis], num_frames)
    frames = jnp.sort(frames, axis=1)
    return jnp.where(py_utils.sequence_mask(counts, num_frames), frames, 0), counts


def forced_alignment(
    logits: Float[Array, "B T K"],
    logitpaddings: Shaped[Array, "..."],
    labels: Int[Array, "..."],
    labelpaddings: Shaped[Array, "..."],
    blank_id: int = 0,
) -> Int[Array, "B N"]:
    """Finds the frame where each label starts, from the logits of a CTC model.

    Args:
      logits: [B, T, K].
      logitpaddings: [B, T], 1 marks padding, all of it after the frames.
      labels: [B, N].
      labelpaddings: [B, N], 1 marks padding, all of it after the labels.
      blank_id: The class that stands for no label.

    Returns:
      [B, N], the first frame of each label, 0 for padding; or -1 all over where there are too few
      frames for the labels.

    Raises:
      ValueError: if the shapes do not go together or `blank_id` is no class.
    """
    _, alignments = ctc_loss_with_alignments(logits, logitpaddings, labels, labelpaddings, blank_id)
    starts, _ = frame_alignment_to_label_alignment(alignments.alignment, logitpaddings)
    num_labels = labels.shape[1]
    starts = jnp.pad(starts, [(0, 0), (0, num_labels)])[:, :num_labels]
    is_valid = is_valid_ctc_seq(logitpaddings, labels, labelpaddings)[:, jnp.newaxis] > 0
    return jnp.where(is_valid, starts, -1)
