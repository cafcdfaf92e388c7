"""The recurrent motion model: the Kalman filter when untrained, equivariant, and laid out as declared."""

import math
from pathlib import Path

import pytest
import torch

from tests.tracking.scenes import BOXES, SCORES, observe_moving_boxes
from track.tracking.motion import KALMAN_SIZE, Kalman
from track.tracking.recurrent import (
    CELL_FEATURES,
    CELL_INPUTS,
    EMA_RATES,
    HEAD_FEATURES,
    HEAD_INPUTS,
    HISTORY,
    RecurrentMotion,
    load_motion,
    save_motion,
)

CELLS = ["gru", "lstm", "rnn"]


def with_random_head(cell: str = "gru", history_length: int = HISTORY) -> RecurrentMotion:
    """A network whose head corrects the filter, as after training."""
    torch.manual_seed(0)
    network = RecurrentMotion(cell, history_length=history_length)
    for weight in network.head.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return network


def named(layout: dict[str, int], features: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(layout, features.split(list(layout.values()), 1), strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_an_untrained_network_is_the_kalman_filter(cell: str) -> None:
    network, kalman = RecurrentMotion(cell), Kalman()
    elapsed = torch.tensor([0.0, 0.1, 1.0])
    state = network.predict(observe_moving_boxes(network), elapsed)
    expected = kalman.predict(observe_moving_boxes(kalman), elapsed)
    torch.testing.assert_close(network.project(state), kalman.project(expected))


@pytest.mark.parametrize("cell", CELLS)
def test_predictions_scale_and_shift_with_the_image(cell: str) -> None:
    network = with_random_head(cell)
    affine = torch.tensor([[2.0, 0, 50], [0, 2, -30]])
    state = network.predict(observe_moving_boxes(network), torch.full((3,), 0.2))
    position, sigma = network.project(state)
    moved, moved_sigma = network.project(network.apply_camera_motion(state, affine))
    torch.testing.assert_close(moved, position * 2 + torch.tensor([50.0, -30, 0, 0]), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(moved_sigma, 2 * sigma, rtol=1e-3, atol=1e-3)


def test_tracks_do_not_influence_each_other() -> None:
    network = with_random_head()
    state = observe_moving_boxes(network)
    torch.testing.assert_close(network.project(state[[2, 0]])[0], network.project(state)[0][[2, 0]])


@pytest.mark.parametrize("cell", CELLS)
def test_saved_weights_load_to_the_same_network(tmp_path: Path, cell: str) -> None:
    network = with_random_head(cell)
    save_motion(network, tmp_path / "m.safetensors")
    loaded = load_motion(tmp_path / "m.safetensors")
    expected = network.project(observe_moving_boxes(network))
    torch.testing.assert_close(loaded.project(observe_moving_boxes(loaded)), expected)
    assert loaded.options == {"cell": cell, "hidden": 64, "dropout": 0.0}


def test_a_file_that_is_absent_or_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"not weights")
    for file in ("m.safetensors", "absent.safetensors"):
        with pytest.raises(ValueError, match=f"{file}: expected motion weights"):
            load_motion(tmp_path / file)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cell: expected one of gru, lstm, rnn, got transformer"):
        RecurrentMotion("transformer")


def test_the_history_is_newest_first_with_ages_and_moves_with_the_camera() -> None:
    network = RecurrentMotion().eval()
    state = network.predict(observe_moving_boxes(network, frames=5), torch.full((3,), 0.5))
    boxes, ages = network.history(state)
    assert boxes.shape == (3, HISTORY, 4)
    assert ages.shape == (3, HISTORY)
    torch.testing.assert_close(boxes[0, :6, 0], torch.tensor([32.0, 29, 26, 23, 20, 20]))
    torch.testing.assert_close(ages[0, :6], torch.tensor([15.0, 16, 17, 18, 19, 19]) / 30)
    affine = torch.tensor([[1.1, 0, 50], [0, 1.1, 0]])
    moved = network.history(network.apply_camera_motion(state, affine))[0]
    torch.testing.assert_close(moved[0, 0], 1.1 * boxes[0, 0] + torch.tensor([50.0, 0, 0, 0]))


def test_a_shorter_history_predicts_the_same() -> None:
    predictions = []
    for history_length in (HISTORY, 1):
        network = with_random_head(history_length=history_length)
        state = network.predict(observe_moving_boxes(network), torch.full((3,), 0.3))
        assert state.shape == (3, KALMAN_SIZE + 5 * history_length + 6 + 64)
        predictions.append(network.project(state))
    torch.testing.assert_close(predictions[0], predictions[1])


def test_history_length_is_given_on_loading_and_not_saved(tmp_path: Path) -> None:
    save_motion(with_random_head(history_length=1), tmp_path / "m.safetensors")
    assert load_motion(tmp_path / "m.safetensors").history_length == HISTORY
    assert load_motion(tmp_path / "m.safetensors", history_length=1).history_length == 1


@pytest.mark.parametrize("cell", CELLS)
def test_a_packed_state_unpacks_to_columns_of_the_declared_shapes(cell: str) -> None:
    network = RecurrentMotion(cell, hidden=8, history_length=3)
    state = network.predict(observe_moving_boxes(network), torch.full((3,), 0.5))
    columns = network.unpack(state)
    assert torch.equal(columns.pack(), state)
    widths = [KALMAN_SIZE, 3, 12, len(EMA_RATES), 16 if cell == "lstm" else 8]
    assert [column.shape for column in columns] == [(3, width) for width in widths]
    torch.testing.assert_close(columns.ages[0], torch.tensor([15.0, 16, 17]) / 30)
    torch.testing.assert_close(columns.boxes[0, :4], torch.tensor([35.0, 55, 20, 60]))


def test_a_state_of_another_history_length_is_refused() -> None:
    with pytest.raises(RuntimeError):
        RecurrentMotion(history_length=2).unpack(observe_moving_boxes(RecurrentMotion(history_length=3)))


def test_moving_averages_follow_size_and_foot_at_their_rates_times_the_score() -> None:
    network = RecurrentMotion().eval()
    state = network.initiate(BOXES, SCORES)
    start = [math.log(20), math.log(60), 80]
    torch.testing.assert_close(network.unpack(state).averages[0], torch.tensor(start * 2))
    state = network.update(network.predict(state, torch.full((3,), 0.1)), BOXES + torch.tensor([0, 0, 0, 10.0]), SCORES)
    moved = [math.log(20), math.log(70), 90]
    expected = [a + 0.9 * rate * (b - a) for a, b, rate in zip(start * 2, moved * 2, EMA_RATES, strict=True)]
    torch.testing.assert_close(network.unpack(state).averages[0], torch.tensor(expected))


def test_the_cell_reads_the_declared_features() -> None:
    network = RecurrentMotion().eval()
    columns = network.unpack(network.predict(observe_moving_boxes(network), torch.full((3,), 2 / 30)))
    position, sigma = network.kalman.project(columns.kalman)
    features = network._cell_inputs(columns, position + sigma, SCORES)
    assert features.shape == (3, CELL_INPUTS)
    parts = named(CELL_FEATURES, features)
    torch.testing.assert_close(parts["normalised innovation"], torch.ones(3, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(parts["log steps"], torch.tensor([[2.0]] * 3).log())
    torch.testing.assert_close(parts["score"][:, 0], SCORES)
    torch.testing.assert_close(parts["log aspect ratio"][0, 0], torch.tensor(1 / 3).log())
    torch.testing.assert_close(parts["innovation"][0], 10 * sigma[0] / torch.tensor([20.0, 60, 20, 60]))


def test_the_head_reads_the_memory_and_the_declared_features() -> None:
    network = RecurrentMotion("lstm", hidden=8).eval()
    columns = network.unpack(network.predict(observe_moving_boxes(network), torch.full((3,), 2 / 30)))
    memory, features = network._head_inputs(columns).split([8, HEAD_INPUTS], 1)
    assert torch.equal(memory, columns.memory[:, 8:])
    position, sigma = network.kalman.project(columns.kalman)
    parts = named(HEAD_FEATURES, features)
    torch.testing.assert_close(parts["time"][0], torch.stack([torch.tensor(3.0).log(), torch.tensor(-2.0).exp()]))
    torch.testing.assert_close(parts["lag"], ((columns.boxes[:, :4] - position) / sigma).clamp(-5, 5))
    torch.testing.assert_close(parts["log sigma"][0], (sigma[0] / torch.tensor([20.0, 60, 20, 60])).log())


def test_track_features_have_the_declared_size_and_start_with_the_moving_averages() -> None:
    network = RecurrentMotion(hidden=8).eval()
    state = network.initiate(BOXES, SCORES)
    features = network.track_features(state, network.project(state)[0])
    assert features.shape == (3, network.feature_size)
    torch.testing.assert_close(features[:, : len(EMA_RATES)], torch.zeros(3, len(EMA_RATES)))
    shifted = network.track_features(state, network.project(state)[0] - torch.tensor([0.0, 6, 0, 0]))
    torch.testing.assert_close(shifted[0, :6], torch.tensor([0, 0, 0.1, 0, 0, 0.1]), rtol=1e-4, atol=1e-5)
