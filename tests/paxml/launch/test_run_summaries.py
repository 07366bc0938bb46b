"""What a run writes about itself (behaviour 114, and profiles)."""

import json
import pathlib

from paxml.summary.events import read_events, read_scalars

TRAIN = {
    "loss",
    "Steps/sec",
    "throughput/input_wait_secs_per_step",
    "throughput/model_flops_utilization",
    "Metrics/loss",
    "Metrics/loss-weight",
    "Metrics/mae",
    "Metrics/mae-weight",
    "bias_scalar",
    "lr_scalar",
    *(
        f"learning/{name}_scalar"
        for name in (
            "lr",
            "raw_grad_norm",
            "grad_scale",
            "clipped_grad_norm",
            "applied_grad_norm",
            "var_norm",
            "is_valid_step",
        )
    ),
    *(f"vars/{name}_scalar" for name in ("non_trainable/mean", "params/b", "params/w")),
}
EVAL = {
    "loss",
    "bias_scalar",
    *(f"Metrics/{m}{w}" for m in ("loss", "mae") for w in ("", "-weight")),
}
TEXTS = {
    "Model/text_summary",
    "Parameters/text_summary",
    "Total Num Params/text_summary",
    "Global batch size/text_summary",
    "Model vars provenance/text_summary",
    "Opt states provenance/text_summary",
}
HPARAMS = {"_hparams_/experiment", "_hparams_/session_start_info"}


def tags(directory):
    (path,) = directory.glob("*.tfevents.*")
    return {value.tag for event in read_events(path) for value in event.summary.value}


def test_tags_of_each_part(run_dir):
    """Behaviour 114; decoding is tested with its programs."""
    summaries = run_dir / "summaries"
    assert tags(summaries / "train") == TRAIN | TEXTS | HPARAMS
    assert tags(summaries / "eval_train") == EVAL
    assert tags(summaries / "eval_test_test") == EVAL


def test_lines_of_json_hold_the_same_numbers(run_dir, tmp_path):
    events = run_dir / "summaries" / "train"
    (tmp_path / "metrics.jsonl").write_bytes((events / "metrics.jsonl").read_bytes())
    for tag in TRAIN:
        from_lines = read_scalars(tmp_path, tag)
        assert from_lines, tag
        assert from_lines.keys() == read_scalars(events, tag).keys()


def test_settings_are_recorded(run_dir):
    lines = (run_dir / "summaries" / "train" / "metrics.jsonl").read_text().splitlines()
    (hparams,) = (entry["hparams"] for entry in map(json.loads, lines) if "hparams" in entry)
    assert hparams["BATCH"] == 8
    assert hparams["train.num_train_steps"] == 10
    assert hparams["train.learner.optimizer.learning_rate"] == 0.1
    assert "train.save_max_to_keep" not in hparams  # as by default


def test_utilization_is_that_of_the_counted_flops(run_dir):
    """Three times the forward pass, over the peak of eight devices of 1 GFLOP/s each."""
    directory = run_dir / "summaries" / "train"
    used = read_scalars(directory, "throughput/model_flops_utilization")
    speed = read_scalars(directory, "Steps/sec")
    counted = {step: used[step] / speed[step] * 8e9 for step in used}
    # x @ w is 2 * 8 * 3; dropout, errors, means and the running mean come on top.
    assert len(set(map(round, counted.values()))) == 1
    assert 3 * 48 < counted[2] < 3 * 1000


def test_a_profile_is_captured(run_dir):
    found = list((pathlib.Path(run_dir) / "plugins" / "profile").glob("*/*.xplane.pb"))
    assert len(found) == 1
    assert found[0].stat().st_size > 1000
