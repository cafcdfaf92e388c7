"""Weights files: round trips, permissions, and what is refused."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from track.checkpoint import atomic_write, first_line, holds, install_command, load, save


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    first, second = linear(2, 3), linear(4, 1)
    networks = {"a": (first, {"inputs": 2, "outputs": 3}), "b": (second, {"inputs": 4, "outputs": 1})}
    return save(tmp_path / "new" / "weights.safetensors", networks)


def test_networks_and_options_survive_a_round_trip(file: Path) -> None:
    torch.manual_seed(0)
    expected = linear(2, 3)
    network, options = load(file, "a", linear)
    assert options == {"inputs": 2, "outputs": 3}
    assert torch.equal(network.weight, expected.weight)
    assert torch.equal(network.bias, expected.bias)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert load(file, "b", linear)[0].weight.shape == (1, 4)


def test_a_file_tells_which_networks_it_holds(file: Path) -> None:
    assert [holds(file, name) for name in ("a", "b", "c")] == [True, True, False]
    with pytest.raises(
        ValueError, match=r"expected c weights, as `grutrack train` writes them \(the file holds a, b\)"
    ):
        load(file, "c", linear)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no weights")
    for path in (tmp_path / "x", tmp_path / "absent"):
        with pytest.raises(ValueError, match=rf"{path}: expected weights, as `grutrack train` writes them"):
            holds(path, "a")
        with pytest.raises(ValueError, match=rf"{path}: expected a weights, as `grutrack train` writes them"):
            load(path, "a", linear)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("first\nsecond"), "first"), (EOFError(), "EOFError"), (RuntimeError("\nmessage\n"), "message")],
)
def test_an_error_is_named_by_its_first_line_or_its_type(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_weights_have_the_permissions_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        file = save(tmp_path / "w.safetensors", {"a": (linear(1, 1), {"inputs": 1, "outputs": 1})})
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
        assert temporary.parent == tmp_path
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("new, but not all of i")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_simultaneous_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "a") as second:
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the last to finish
    assert len(list(tmp_path.iterdir())) == 1


def test_packaged_weights_are_found_by_name_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert holds("crowds", "association")
    (tmp_path / "crowds").write_text("a file of one's own")
    with pytest.raises(ValueError, match="crowds: expected weights"):
        holds("crowds", "association")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 4000, "outputs": 4000}, r"weight: expected \(4000, 4000\), got \(3, 2\)"),
        ({"inputs": 10**9, "outputs": 10**9}, "inputs: expected at most 4096, got 1000000000"),
        ({"inputs": 2}, "missing 1 required positional argument: 'outputs'"),
    ],
)
def test_options_of_a_larger_network_than_the_file_holds_allocate_nothing(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    built: list[torch.device] = []

    def build(inputs: int, outputs: int) -> nn.Linear:
        built.append(torch.empty(0).device)
        return nn.Linear(inputs, outputs)

    file = save(tmp_path / "weights.safetensors", {"a": (nn.Linear(2, 3), options)})
    with pytest.raises(ValueError, match=message):
        load(file, "a", build)
    assert all(device.type == "meta" for device in built)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    network = nn.Linear(2, 3)
    with torch.no_grad():
        network.weight[0, 0] = value
    file = save(tmp_path / "weights.safetensors", {"a": (network, {"inputs": 2, "outputs": 3})})
    with pytest.raises(ValueError, match="weight: expected finite numbers"):
        load(file, "a", linear)


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    networks = {name: (nn.Linear(2, 3), {"inputs": 2, "outputs": 3}) for name in "abcdef"}
    contents = {
        save(tmp_path / f"{n}.safetensors", dict(sorted(networks.items(), reverse=n % 2 == 0))).read_bytes()
        for n in range(8)
    }
    assert len(contents) == 1
    assert torch.equal(load(tmp_path / "0.safetensors", "c", linear)[0].weight, networks["c"][0].weight)


def test_what_an_extra_needs_is_said_by_the_packages_own_names() -> None:
    assert install_command("rerun") == "pip install 'rerun-sdk>=0.41'"
    assert install_command("onnx") == "pip install 'onnx>=1.16' 'onnxscript>=0.2'"
