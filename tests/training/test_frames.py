import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from track.detector import load_detector
from track.mot import find_sequences
from track.synthetic import make_dataset
from track.training.detector import DetectorModule
from track.training.frames import Example, FramesData, Pictures, penn_fudan, sequence_examples
from track.video import VideoWriter, frames

ROW = 'Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (11, 21) - (31, 61)\n'


def make_penn_fudan(root: Path, text: str = ROW) -> Path:
    for name in ("Annotation", "PNGImages"):
        (root / name).mkdir()
    (root / "Annotation" / "a.txt").write_text(text)
    Image.new("RGB", (64, 80)).save(root / "PNGImages" / "a.png")
    return root


def test_penn_fudan_boxes_become_zero_based(tmp_path: Path) -> None:
    assert penn_fudan(make_penn_fudan(tmp_path))[0][0].boxes.tolist() == [[10, 20, 30, 60]]


def test_an_annotation_without_boxes_or_image_is_named(tmp_path: Path) -> None:
    make_penn_fudan(tmp_path, "nothing")
    with pytest.raises(ValueError, match=r"a.txt: expected at least one line 'Bounding box"):
        penn_fudan(tmp_path)
    (tmp_path / "PNGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a.txt: expected its image"):
        penn_fudan(tmp_path)


def test_boxes_are_clipped_and_those_without_area_dropped(tmp_path: Path) -> None:
    Image.new("RGB", (64, 80)).save(tmp_path / "a.png")
    boxes = torch.tensor([[-5.0, 10, 20, 30], [70, 10, 90, 30], [10, 10, 10, 40]])
    _, target = Pictures([Example(tmp_path / "a.png", 0, boxes)], augment=False)[0]
    assert target["boxes"].tolist() == [[0, 10, 20, 30]]


def test_sequences_are_split_and_thinned(tmp_path: Path) -> None:
    make_dataset(tmp_path, 3, 10, seed=0)
    data = FramesData(str(tmp_path), every=5, val_fraction=0.34)
    data.setup("fit")
    assert {e.file.parent.parent.name for e in data.val.examples} == {"street-00-02"}
    assert sorted(e.file.name for e in data.val.examples) == ["000001.jpg", "000006.jpg"]


def test_the_small_detector_learns_two_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make_dataset(tmp_path, 2, 1, seed=5)
    data = FramesData(str(tmp_path), val_fraction=0.5)
    data.setup("fit")
    images, targets = zip(data.val[0], data.train[0], strict=True)
    module = DetectorModule("small_fcos", weights=None)
    optimizer = torch.optim.AdamW(module.parameters(), 4e-3)
    losses = []
    for _ in range(12):
        loss = sum(module.network(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_frames_of_a_video_get_their_own_boxes(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 12, seed=6)
    sequence = find_sequences(tmp_path)[0]
    with VideoWriter(sequence.path / "video.mp4", 15) as video:
        for frame in frames(sequence.path / "img1"):
            video.write(frame.image)
    pictures = Pictures(sequence_examples(sequence, every=5), augment=False)
    drawn = [pictures[i] for i in range(3)]
    shutil.rmtree(sequence.path / "img1")
    filmed = Pictures(sequence_examples(sequence, every=5), augment=False)
    assert [example.number for example in filmed.examples] == [1, 6, 11]
    for (a, x), (b, y) in zip(drawn, (filmed[i] for i in range(3)), strict=True):
        assert x["boxes"].tolist() == y["boxes"].tolist()
        assert (a - b).abs().mean() < 0.03


def test_mirroring_takes_the_boxes_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = Pictures(penn_fudan(make_penn_fudan(tmp_path))[0], augment=True)
    found = {tuple(data[0][1]["boxes"][0].tolist()) for _ in range(20)}
    assert found == {(10, 20, 30, 60), (34, 20, 54, 60)}


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = make_penn_fudan(tmp_path)
    (root / "PNGImages" / "a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"a.png: expected an image that can be read"):
        Pictures(penn_fudan(root)[0], augment=False)[0]


def test_a_video_shorter_than_its_sequence_is_named(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 12, seed=6)
    sequence = find_sequences(tmp_path)[0]
    with VideoWriter(sequence.path / "video.mp4", 15) as video:
        for frame in list(frames(sequence.path / "img1"))[:8]:
            video.write(frame.image)
    shutil.rmtree(sequence.path / "img1")
    pictures = Pictures(sequence_examples(sequence, every=5), augment=False)
    with pytest.raises(ValueError, match=r"video.mp4: expected a frame 11, the video is shorter"):
        pictures[2]


def test_a_checkpoint_keeps_its_own_architecture(tmp_path: Path) -> None:
    first = DetectorModule("small_fcos", weights=None).export(tmp_path / "a")
    again = DetectorModule("ssdlite320_mobilenet_v3_large", checkpoint=str(first)).export(tmp_path / "b")
    assert load_detector(again)[0] == "small_fcos"
