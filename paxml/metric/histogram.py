"""How evenly something is used: a vocabulary, a codebook, experts."""

import numpy as np

from paxml.metric.base import BaseMetrics, Reduced


class HistogramMetrics(BaseMetrics):
    """Entropy, perplexity and coverage of a histogram summed over the batches.

    With p the normalized sum, the metrics are `<name>_entropy`, -sum(p log p) in nats,
    `<name>_pplx`, its exponential, between 1 and the number of bins, and `<name>_coverage`, the
    fraction of bins that were hit. The weight of each is the sum of the batches' weights.

    Attributes:
      histogram_key: Name of the metric whose value is a histogram [bins]. Required.
    """

    histogram_key: str | None = None

    def finalize(self) -> Reduced:
        batches, key = self._take(), self.histogram_key
        if not batches:
            return {}
        if key is None or key not in batches[0]:
            raise KeyError(
                f"HistogramMetrics: histogram_key is {key!r}, but the model has the metrics "
                f"{sorted(batches[0])}. Set it to one whose value is a histogram."
            )
        counts = np.sum([np.asarray(batch[key][0], np.float64) for batch in batches], axis=0)
        weight = np.sum([np.asarray(batch[key][1], np.float64) for batch in batches])
        hit = counts[counts > 0]
        probs = hit / hit.sum()
        entropy = -np.sum(probs * np.log(probs))
        values = {
            f"{key}_pplx": np.exp(entropy),
            f"{key}_entropy": entropy,
            f"{key}_coverage": hit.size / counts.size,
        }
        return {name: (np.asarray(value), np.asarray(weight)) for name, value in values.items()}
