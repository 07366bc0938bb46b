"""What the settings of shipped language models become, and which are refused (section 17)."""

import jax
import numpy as np
import pytest

from paxml.experiment import lookup
from paxml.tasks import batch
from paxml.tasks.lm import gpt3
from paxml.tasks.lm.model_params import TransformerLmSpmdAdafactor
from paxml.tasks.lm.synthetic import SyntheticDataset
from paxml.trainer.types import RunningMode


def variant(name, **settings):
    """A shipped experiment with other settings."""
    return type("Variant", (lookup.get_experiment(name),), settings)()


def test_adafactor_base_has_the_recorded_settings():
    base = type(
        "Base", (SyntheticDataset, TransformerLmSpmdAdafactor), {"ICI_MESH_SHAPE": (1, 4, 2)}
    )
    task = base().task()
    stack = task.model.lm_tpl.stacked_transformer_tpl
    attention = stack.transformer_layer_params_tpl.tr_atten_tpl
    assert (stack.num_layers, stack.num_heads, stack.dim_per_head) == (10, 16, 128)
    assert (stack.hidden_dims, task.model.lm_tpl.vocab_size) == (8192, 32000)
    assert (attention.atten_logit_cap, attention.combine_qkv, attention.use_bias) == (
        50,
        True,
        False,
    )
    softmax = task.model.lm_tpl.softmax_tpl
    assert (softmax.soft_cap_logits, softmax.scale_sqrt_depth) == (30, True)
    assert softmax.params_init.scale == pytest.approx(2048**-0.5)
    train, optimizer = task.train, task.train.learner.optimizer
    assert (train.save_interval_steps, train.save_max_to_keep) == (5000, 10)
    assert (train.summary_interval_steps, train.eval_interval_steps) == (100, 100)
    assert (optimizer.learning_rate, optimizer.clip_gradient_norm_to_value) == (2.5e-4, 5)
    schedule = (
        optimizer.lr_schedule.Instantiate()
        if hasattr(optimizer.lr_schedule, "Instantiate")
        else optimizer.lr_schedule
    )
    values = [float(schedule.value_at(step)) for step in (0, 2000, 4000, 100_000)]
    np.testing.assert_allclose(values, [0, 0.5, 1, 0.1], rtol=1e-5)
    assert train.inputs_split_mapping.map_2d == (("replica", "data"), None)


def test_heads_have_to_fill_the_width():
    message = r"Variant: NUM_HEADS = 3 times DIMS_PER_HEAD = 8 is 24, expected MODEL_DIMS = 64"
    with pytest.raises(ValueError, match=message):
        variant("LmCloudSpmdTest", NUM_HEADS=3).task()


def test_a_mesh_is_needed():
    message = r"Variant: ICI_MESH_SHAPE is None\. .*\['replica', 'data', 'mdl'\]"
    with pytest.raises(ValueError, match=message):
        variant("LmCloudSpmdTest", ICI_MESH_SHAPE=None).task()


def test_layers_have_to_fill_the_stages():
    message = r"NUM_LAYERS = 17 is not a multiple of 2 stages times CIRCULAR_REPEAT = 3"
    with pytest.raises(ValueError, match=message):
        variant("LmCloudSpmdPipelineMultislice2BCircular", NUM_LAYERS=17).task()


def test_a_pipeline_needs_microbatches():
    message = r"NUM_MICROBATCHES and MICROBATCH_SIZE are both None"
    with pytest.raises(ValueError, match=message):
        variant("C4SpmdPipelineAdam", MICROBATCH_SIZE=None).task()


@pytest.mark.parametrize(
    ("percore", "devices", "processes", "local", "expected"),
    [
        (16, None, 1, 3, (48, 1)),
        (16, 64, 1, 1, (1024, 1)),
        (0.75, 128, 1, 1, (96, 1)),
        (0.75, 128, 32, 4, (3, 32)),
        (0.125, 128, 32, 4, (1, 16)),
    ],
    ids=str,
)
def test_rows_per_process(percore, devices, processes, local, expected, monkeypatch):
    """Rows are by local devices; below one row, fewer processes read."""
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax, "local_device_count", lambda: local)
    assert batch.rows_per_process(percore, devices) == expected


@pytest.mark.parametrize(
    ("size", "learning_rate", "warmup_steps"),
    [("1p5k768", 2e-5, 265), ("3k768", 2e-5, 133), ("4k1024", 3e-5, 100), ("8k1024", 3e-5, 50)],
)
def test_mlperf_settings_follow_from_the_batch(size, learning_rate, warmup_steps):
    task = lookup.get_experiment(f"C4SpmdPipelineGpt3AdamMLPerfHPBS{size}Replicas")().task()
    optimizer = task.train.learner.optimizer
    assert optimizer.learning_rate == learning_rate
    assert optimizer.lr_schedule.warmup_steps == warmup_steps
    assert task.train.save_interval_steps == 2 * task.train.eval_interval_steps
    assert task.model.lm_tpl.stacked_transformer_tpl.pipeline_microbatch_size == 8


def test_gpt3_stops_at_its_target():
    name = "C4SpmdGpt3AdamOrgHPBS1p5k1536Replicas"
    experiment = lookup.get_experiment(name)()
    stop = gpt3.StopAtTarget(metric=gpt3.LOG_PPLX, target=2.69)
    names = {dataset.name for dataset in experiment.eval_datasets()}
    assert f"eval_test_{names.pop()}/metrics/log_pplx" == gpt3.LOG_PPLX
    told = (RunningMode.EVAL, 7, False, None)
    assert not stop({}, *told)
    assert not stop({gpt3.LOG_PPLX: 2.7}, *told)
    assert stop({gpt3.LOG_PPLX: 2.69}, *told)


def test_synthetic_tokens_are_ones_in_one_segment():
    reader = lookup.get_experiment("LmCloudSpmdTest")().train_datasets()[0].Instantiate()
    found = reader.get_next()
    assert found.ids.shape == (4, 1024)
    assert {name: set(np.unique(found[name])) for name in ("ids", "labels", "paddings")} == {
        "ids": {1},
        "labels": {1},
        "paddings": {0.0},
    }
    assert set(np.unique(found.segment_ids)) == {1}
    reader.set_state(reader.get_state())


def test_text_of_local_files_in_place_of_c4(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abcde")
    (tmp_path / "b.txt").write_bytes(b"fg")
    settings = {"TEXT_FILES": str(tmp_path / "*.txt"), "MAX_SEQ_LEN": 4}
    train, evaluation = variant("C4SpmdAdam", **settings).datasets()
    rows = evaluation.set(batch_size=2).Instantiate().get_next()
    assert rows.labels.astype(np.uint8).tobytes() == b"abcde\nfg"
    assert rows.ids[:, 0].tolist() == [0, 0]
    assert rows.ids[:, 1:].tolist() == rows.labels[:, :-1].tolist()
    assert (train.name, evaluation.name) == ("C4Train", "C4Validation")
    settings["MAX_SEQ_LEN"] = 99
    short = variant("C4SpmdAdam", **settings).datasets()[0].Instantiate()
    with pytest.raises(FileNotFoundError, match=r"C4Train.*hold 8 bytes.*99 of one row"):
        short.get_next()
