"""Recurrent layers, and the small layers of `test_layers` and `searchable`."""

import numpy as np

from praxis import py_utils
from praxis.layers import (
    activations,
    frnn,
    linears,
    rnn_cell,
    searchable,
    test_layers,
    transformers,
)
from registry.entry import EVEN, B, Config, D, F, H, T, add, floats

NestedMap = py_utils.NestedMap
SIZES = {"num_input_nodes": D, "num_output_nodes": EVEN}
LSTM = Config(rnn_cell.LstmCellSimple, reset_cell_state=True, **SIZES)

STEP = NestedMap(
    act=[floats(B, D)],
    padding=np.array([[0.0], [1.0]], np.float32),
    reset_mask=np.array([[0.0], [1.0]], np.float32),
)
STATE = NestedMap(m=floats(B, EVEN, seed=1), c=floats(B, EVEN, seed=2))
WRONG_STEP = NestedMap(STEP, padding=STEP.padding[:, 0])
for template, variant in (
    (LSTM, ""),
    (Config(rnn_cell.LstmCellSimple, num_hidden_nodes=H, zo_prob=0.5, **SIZES), "projected"),
    (Config(rnn_cell.LayerNormalizedLstmCellSimple, **SIZES), ""),
    (Config(rnn_cell.CifgLstmCellSimple, **SIZES), ""),
):
    width = H if variant else EVEN
    add(
        template,
        {"state0": NestedMap(STATE, c=floats(B, width, seed=2)), "inputs": STEP},
        variant=variant,
        wrong={"inputs": WRONG_STEP},
        streams=["random"] if variant else [],
    )

PADDING = np.zeros([B, T, 1], np.float32)
PADDING[-1, -2:] = 1.0
SEQUENCE = NestedMap(
    act=floats(B, T, D),
    padding=PADDING,
    segment_ids=np.array([1, 1, 2, 2, 2], np.int32).repeat(B).reshape(T, B).T[:, :, np.newaxis],
)
WRONG_SEQUENCE = {"inputs": NestedMap(SEQUENCE, padding=PADDING[..., 0])}
for layer in (frnn.FRnn, frnn.LstmFrnn):
    add(Config(layer, cell_tpl=LSTM), {"inputs": SEQUENCE}, wrong=WRONG_SEQUENCE)
for stack in (frnn.StackFrnn, frnn.StackBiFrnn):
    add(
        Config(stack, frnn_tpl=Config(frnn.LstmFrnn, cell_tpl=LSTM), num_layers=2, **SIZES),
        {"inputs": SEQUENCE},
        wrong=WRONG_SEQUENCE,
    )

add(
    Config(
        searchable.AutoMLSelect,
        search_options_tpl=[
            Config(linears.Linear, input_dims=D, output_dims=D),
            Config(activations.ReLU),
        ],
    ),
    {"x": floats(B, D)},
    wrong={"x": floats(B, D + 1)},
)

WIDE, WRONG_WIDTH = {"inputs": floats(B, D)}, {"inputs": floats(B, D + 1)}
PROJECTION = {"input_dims": D, "output_dims": F}
add(Config(test_layers.AddOneLayer), WIDE, wrong="any array will do")
add(Config(test_layers.ProjectionLayer, **PROJECTION), WIDE, wrong=WRONG_WIDTH)
add(Config(test_layers.VarUnusedLayer, **PROJECTION), WIDE, wrong=WRONG_WIDTH)
add(Config(test_layers.TestLayer), {"inputs": floats(B, 2)}, wrong=WRONG_WIDTH)
for template, width in (
    (Config(test_layers.TestModel01, **PROJECTION), F),
    (Config(test_layers.TestLinearRegressionModel, **PROJECTION), F),
    (Config(test_layers.TestBatchNormalizationModel, input_dims=D), D),
    (
        Config(
            test_layers.TestSpmdModel,
            xformer_ffw=Config(transformers.TransformerFeedForward, input_dims=D, hidden_dims=F),
        ),
        D,
    ),
):
    batch = NestedMap(inputs=floats(B, D), targets=floats(B, width, seed=1))
    add(
        template,
        {"input_batch": batch},
        float32_outputs="all",
        wrong={"input_batch": NestedMap(batch, targets=floats(B, width + 1))},
    )
