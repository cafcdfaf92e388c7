"""Data for training detectors: boxes, splits and augmentation, and what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import Compose

from track.datasets.annotations import AnnotatedImage, sequence_examples
from track.datasets.streets import make_dataset
from track.formats.mot import MotSequence, find_sequences
from track.media.sources import ImageFolder
from track.media.video_writer import VideoWriter
from track.training.detection_data import DetectionDataModule, DetectionDataset

PERSON = torch.tensor(1)


def example(file: Path, *boxes: list[float]) -> AnnotatedImage:
    return AnnotatedImage(file, 0, torch.tensor(boxes), torch.ones(len(boxes), dtype=torch.long))


def write_video(sequence: MotSequence, count: int) -> None:
    """Write the sequence's first `count` images as its video."""
    with VideoWriter(sequence.path / "video.mp4", 15) as video:
        for frame in list(ImageFolder(sequence.path / "img1"))[:count]:
            video.write(frame.image)


def test_boxes_are_clipped_and_those_without_area_dropped(tmp_path: Path) -> None:
    Image.new("RGB", (64, 80)).save(tmp_path / "a.png")
    boxes = [-5.0, 10, 20, 30], [70.0, 10, 90, 30], [10.0, 10, 10, 40]
    _, target = DetectionDataset([example(tmp_path / "a.png", *boxes)], augment=False)[0]
    assert target["boxes"].tolist() == [[0, 10, 20, 30]]


def test_whole_sequences_validate_and_the_stride_thins_them(tmp_path: Path) -> None:
    make_dataset(tmp_path, 3, 10, seed=0)
    data = DetectionDataModule(str(tmp_path), stride=5, val_fraction=0.34)
    data.setup("fit")
    assert {e.file.parent.parent.name for e in data.val.examples} == {"street-00-02"}
    assert sorted(e.file.name for e in data.val.examples) == ["000001.jpg", "000006.jpg"]


def test_frames_of_a_video_get_their_own_boxes(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 12, seed=6)
    sequence = find_sequences(tmp_path)[0]
    write_video(sequence, 12)
    images = DetectionDataset(sequence_examples(sequence, PERSON, 5), augment=False)
    from_images = [images[i] for i in range(3)]
    shutil.rmtree(sequence.path / "img1")
    video = DetectionDataset(sequence_examples(sequence, PERSON, 5), augment=False)
    assert [one.number for one in video.examples] == [1, 6, 11]
    for (a, x), (b, y) in zip(from_images, (video[i] for i in range(3)), strict=True):
        assert x["boxes"].tolist() == y["boxes"].tolist()
        assert (a - b).abs().mean() < 0.03


def test_augmented_boxes_stay_on_their_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    drawn = Image.new("RGB", (160, 120), (0, 0, 0))
    drawn.paste((255, 255, 255), (40, 30, 80, 100))
    drawn.save(tmp_path / "a.png")
    data = DetectionDataset([example(tmp_path / "a.png", [40.0, 30, 80, 100])], augment=True)
    data.augmentation = Compose(data.augmentation.transforms[1:])  # without colours, so that white stays white
    boxes = []
    for _ in range(40):
        image, target = data[0]
        for x1, y1, x2, y2 in target["boxes"].round().int().tolist():
            white = image.amax(0) > 0.9
            assert white[y1:y2, x1:x2].float().mean() > 0.95
            assert white.float().sum() < 1.1 * (x2 - x1) * (y2 - y1)
            boxes.append((x1, y1, x2, y2))
    assert len(set(boxes)) > 15


def test_roots_are_joined_and_a_single_sequence_is_split_in_time(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 2)):
        make_dataset(tmp_path / name, count, 10, seed=count)
    data = DetectionDataModule([str(tmp_path / "a"), str(tmp_path / "b")], val_fraction=0.3)
    data.setup("fit")
    val = [(e.file.parent.parent.parent.name, int(e.file.stem)) for e in data.val.examples]
    assert val == [("a", 8), ("a", 9), ("a", 10)] + [("b", n) for n in range(1, 11)]
    assert not {e.file for e in data.val.examples} & {e.file for e in data.train.examples}


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"a.png: expected an image that can be read"):
        DetectionDataset([example(tmp_path / "a.png", [1.0, 2, 3, 4])], augment=False)[0]


def test_a_video_shorter_than_its_sequence_is_named(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 12, seed=6)
    sequence = find_sequences(tmp_path)[0]
    write_video(sequence, 8)
    shutil.rmtree(sequence.path / "img1")
    dataset = DetectionDataset(sequence_examples(sequence, PERSON, 5), augment=False)
    with pytest.raises(ValueError, match=r"video.mp4: expected a frame 11, the video is shorter"):
        dataset[2]
