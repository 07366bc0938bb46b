"""Sound and histograms in the forms that writers share."""

import io
import wave

import numpy as np


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Returns a WAV file of 16 bits.

    Args:
      samples: [T, channels] in [-1, 1]; what is outside is cut.
      sample_rate: Samples per second.
    """
    encoded = io.BytesIO()
    with wave.open(encoded, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return encoded.getvalue()


def histogram_of(values: np.ndarray, num_bins: int = 30) -> tuple[list[int], list[float]]:
    """Returns the counts in bins of equal width, and the edges of the bins, one more.

    Example:
      >>> import numpy as np
      >>> histogram_of(np.array([0.0, 1.0, 4.0]), 2)
      ([2, 1], [0.0, 2.0, 4.0])
    """
    counts, edges = np.histogram(np.asarray(values, np.float64).reshape(-1), num_bins)
    return counts.tolist(), edges.tolist()
