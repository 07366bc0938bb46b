"""LSTM steps in NumPy, float64, for comparison with the recurrent layers."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalize(x, epsilon=1e-8):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)


def lstm_step(
    weights,
    m,
    c,
    x,
    padding,
    reset=None,
    *,
    coupled=False,
    forget_bias=0.0,
    cap=10.0,
    zoneout=0.0,
    output_nonlinearity=True,
):
    """One step of evaluation; returns the next m and c.

    Args:
      weights: Dict of `wm`, `b` and optionally `ln_scale` and `w_proj`.
      m: [B, M].
      c: [B, H].
      x: [B, I].
      padding: [B, 1].
      reset: [B, 1], 0 clears m and c first; None: never.
      coupled: Whether there is no input gate.
      forget_bias: Added to the forget gate.
      cap: Of c; None for no cap.
      zoneout: Share of the old state that stays.
      output_nonlinearity: Whether m takes the tanh of c.
    """
    if reset is not None:
        m, c = np.where(reset == 0, 0, m), np.where(reset == 0, 0, c)
    logits = np.split(np.concatenate([x, m], -1) @ weights["wm"], 3 if coupled else 4, -1)
    if "ln_scale" in weights:
        scales = np.split(weights["ln_scale"], len(logits))
        logits = [normalize(gate) * scale for gate, scale in zip(logits, scales, strict=True)]
    biases = np.split(weights["b"], len(logits))
    logits = [gate + bias for gate, bias in zip(logits, biases, strict=True)]
    forget = sigmoid(logits[-2] + forget_bias)
    write = 1 - forget if coupled else sigmoid(logits[1])
    new_c = forget * c + write * np.tanh(logits[0])
    if cap is not None:
        new_c = np.clip(new_c, -cap, cap)
    new_m = sigmoid(logits[-1]) * (np.tanh(new_c) if output_nonlinearity else new_c)
    if "w_proj" in weights:
        new_m = new_m @ weights["w_proj"]
    new_m = zoneout * m + (1 - zoneout) * new_m
    new_c = zoneout * c + (1 - zoneout) * new_c
    return np.where(padding > 0, m, new_m), np.where(padding > 0, c, new_c)


def lstm_loop(weights, m, c, x, padding, reset=None, **options):
    """Steps over the time axis of x [B, T, I], padding and reset [B, T, 1].

    Returns:
      The outputs [B, T, M], and the last m and c.
    """
    outputs = []
    for step in range(x.shape[1]):
        mask = None if reset is None else reset[:, step]
        m, c = lstm_step(weights, m, c, x[:, step], padding[:, step], mask, **options)
        outputs.append(m)
    return np.stack(outputs, 1), m, c
