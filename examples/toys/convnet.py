"""Handwritten digits, with a small residual network."""

from examples.digits import data
from examples.toys.fit import evaluate, fit
from praxis import pax_fiddle
from praxis.layers import convolutions, embedding_softmax, models, normalizations, resnets

TASK = "ResNet, handwritten digits: share of right answers"
THRESHOLD = 0.96
STEPS = 100
_BATCH_SIZE = 64
_CHANNELS = (16, 32)


def config() -> pax_fiddle.Config[models.ClassificationModel]:
    """A 3x3 convolution, a residual block, another one at half the size, the mean of all pixels."""
    network = pax_fiddle.Config(
        resnets.ResNet,
        channels=_CHANNELS,
        blocks=(1, 1),
        strides=(1, 2),
        kernels=(3, 3),
        entryflow_conv_kernel=(3, 3, 1),
        entryflow_conv_stride=(1, 1),
        entry_max_pool=False,
        block_params=pax_fiddle.Config(resnets.ResNetBasicBlock),
        conv_params=pax_fiddle.Config(
            convolutions.ConvBNAct,
            # The mean over the last few batches: there are not many.
            batch_norm_tpl=pax_fiddle.Config(normalizations.BatchNorm, decay=0.9),
        ),
    )
    softmax = pax_fiddle.Config(
        embedding_softmax.FullSoftmax, input_dims=_CHANNELS[-1], num_classes=data.NUM_CLASSES
    )
    return pax_fiddle.Config(
        models.ClassificationModel, name="digits", network_tpl=network, softmax_tpl=softmax
    )


def reach(steps: int = STEPS) -> float:
    """Share of the test images that are right after a training."""
    train, test = data.load()
    per_epoch = len(train.image) // _BATCH_SIZE
    batches = data.epochs(train, num_epochs=-(-steps // per_epoch), batch_size=_BATCH_SIZE)
    model = pax_fiddle.build(config())
    variables = fit(
        model,
        batches.Transform(lambda x: x[:steps]),
        lambda outputs, _: outputs[0].avg_xent[0],
        learning_rate=0.01,
    )
    metrics, _ = evaluate(model, variables, test)
    return float(metrics.accuracy[0])
