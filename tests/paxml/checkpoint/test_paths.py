"""Names of checkpoints (trainer behaviour 85)."""

import pytest

from paxml import checkpoint_paths as paths
from paxml.checkpoint_types import CheckpointType, retrieve_checkpoint_type


@pytest.mark.parametrize(
    ("step", "checkpoint_type", "name"),
    [
        (10, CheckpointType.GDA, "checkpoint_00000010"),
        (10, CheckpointType.FLAX, "checkpoint_10"),
        (1_234_567_890, CheckpointType.GDA, "checkpoint_1234567890"),
    ],
)
def test_name_and_back(step, checkpoint_type, name):
    assert paths.checkpoint_name(step, checkpoint_type) == name
    assert paths.make_checkpoint_step_dir("a/b", step, checkpoint_type).parts == ("a", "b", name)
    assert paths.get_step_from_checkpoint_asset(f"a/b/{name}") == step
    prefix = paths.checkpoint_prefix(checkpoint_type)
    width = paths.checkpoint_name_fixed_length(checkpoint_type) or 0
    assert f"{prefix}{step:0{width}d}" == name


@pytest.mark.parametrize(
    ("name", "finished", "temporary"),
    [
        ("12", True, False),
        ("checkpoint_12", True, False),
        ("checkpoint_00000012", True, False),
        ("checkpoint_00000012.orbax-checkpoint-tmp", False, True),
        ("checkpoint_00000012.orbax-checkpoint-tmp-1700000000", False, True),
        ("tmp_1700000000.checkpoint_12", False, True),
        ("checkpoint_12.unreadable", False, False),
        ("checkpoint_", False, False),
        ("summaries", False, False),
    ],
)
def test_kinds_of_names(name, finished, temporary):
    assert paths.is_checkpoint_asset(f"a/{name}") is finished
    assert paths.is_tmp_checkpoint_asset(f"a/{name}") is temporary
    if finished or temporary:
        assert paths.get_step_from_checkpoint_asset(name) == 12
    else:
        with pytest.raises(ValueError, match=f"{name}' is not the name of a checkpoint"):
            paths.get_step_from_checkpoint_asset(name)


def test_latest_takes_any_number_of_digits(tmp_path):
    with pytest.raises(ValueError, match="No checkpoints were found in directory"):
        paths.latest_checkpoint(tmp_path)
    for name in ("checkpoint_00000005", "12", "checkpoint_7", "tmp_1.checkpoint_99", "other"):
        (tmp_path / name).mkdir()
    assert paths.retrieve_latest_checkpoint_step(tmp_path) == 12
    assert paths.latest_checkpoint(tmp_path).name == "12"
    steps = paths.PaxStepNameFormat(CheckpointType.GDA)
    assert steps.find_step(tmp_path, 5).path.name == "checkpoint_00000005"
    assert steps.find_step(tmp_path, 7).path.name == "checkpoint_7"
    assert steps.find_metadata(tmp_path, 8) is None
    with pytest.raises(ValueError, match="has no checkpoint of step 8"):
        steps.find_step(tmp_path, 8)


def test_missing_directory(tmp_path):
    assert paths.latest_checkpoint_if_exists(tmp_path / "no") is None
    assert paths.retrieve_latest_checkpoint_step_if_exists(tmp_path / "no") is None
    with pytest.raises(ValueError, match="no' does not exist"):
        paths.retrieve_latest_checkpoint_step(tmp_path / "no")


def test_digits_alone_are_read_not_written():
    with pytest.raises(NotImplementedError, match="use_digit_step_subdirectory"):
        paths.PaxStepNameFormat(use_digit_step_subdirectory=True).build_name(3)


def test_kinds_of_files(tmp_path):
    (tmp_path / "checkpoint_3").write_bytes(b"")
    (tmp_path / "checkpoint_4").mkdir()
    assert paths.is_legacy_flax_checkpoint(tmp_path / "checkpoint_3")
    assert not paths.is_legacy_flax_checkpoint(tmp_path / "checkpoint_4")
    assert not paths.is_tfhub_dir(tmp_path)


def test_type_follows_the_mesh():
    class Model:
        ici_mesh_shape: list[int] | None = None

    class Task:
        model = Model

    assert retrieve_checkpoint_type(False, Task) == CheckpointType.FLAX
    Model.ici_mesh_shape = [1, 2]
    assert retrieve_checkpoint_type(False, Task) == CheckpointType.GDA
    with pytest.raises(NotImplementedError, match="persistence checkpoints do not exist"):
        retrieve_checkpoint_type(True, Task)
