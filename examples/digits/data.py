"""The 1797 digits that come with scikit-learn, as images of 8 by 8 pixels."""

import numpy as np
from sklearn.datasets import load_digits

from praxis.py_utils import NestedMap

NUM_CLASSES = 10
IMAGE_SIZE = 8  # pixels
_LARGEST = 16.0  # value of a pixel
_TEST_SHARE = 5  # one image in so many is for the test


def load(seed: int = 0) -> tuple[NestedMap, NestedMap]:
    """Images to train on and images to test with; no image is in both.

    Returns:
      For each, `image` [N, 8, 8, 1] from -1 to 1, and `label_probs` [N, 10].
    """
    found = load_digits(return_X_y=True)
    pixels, classes = np.asarray(found[0]), np.asarray(found[1])
    order = np.random.default_rng(seed).permutation(len(classes))
    shape = (-1, IMAGE_SIZE, IMAGE_SIZE, 1)
    images = pixels[order].reshape(shape) / _LARGEST * 2.0 - 1.0
    labels = np.eye(NUM_CLASSES)[classes[order]]
    everything = NestedMap(image=np.float32(images), label_probs=np.float32(labels))
    num_test = len(order) // _TEST_SHARE
    return everything.Transform(lambda x: x[num_test:]), everything.Transform(
        lambda x: x[:num_test]
    )


def epochs(data: NestedMap, *, num_epochs: int, batch_size: int, seed: int = 0) -> NestedMap:
    """All batches of a training, in order; the images are shuffled anew in each epoch.

    Returns:
      The fields of `data`, each [steps, batch_size, ...].
    """
    size = len(data.image)
    steps = size // batch_size
    generator = np.random.default_rng(seed)
    order = np.concatenate(
        [generator.permutation(size)[: steps * batch_size] for _ in range(num_epochs)]
    ).reshape(num_epochs * steps, batch_size)
    return data.Transform(lambda x: x[order])
