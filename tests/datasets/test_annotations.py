"""Annotated images of each layout, and what is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from track.datasets.annotations import coco, find_examples, penn_fudan
from track.datasets.streets import make_dataset
from track.formats.mot import find_sequences

ROW = 'Bounding box for object 1 "PASpersonWalking" (Xmin, Ymin) - (Xmax, Ymax) : (11, 21) - (31, 61)\n'
PERSON = torch.tensor(1)


def make_penn_fudan(root: Path, text: str = ROW) -> Path:
    for name in ("Annotation", "PNGImages"):
        (root / name).mkdir()
    (root / "Annotation" / "a.txt").write_text(text)
    Image.new("RGB", (64, 80)).save(root / "PNGImages" / "a.png")
    return root


def make_coco(root: Path, annotations: list[dict[str, object]], names: tuple[str, ...] = ("a.png", "b.png")) -> Path:
    (root / "images").mkdir()
    for file in (root / "a.png", root / "images" / "b.png"):
        Image.new("RGB", (64, 80)).save(file)
    images = [{"id": 7 + i, "file_name": name, "width": 64, "height": 80} for i, name in enumerate(names)]
    categories = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(table))
    return root / "labels.json"


def box(image: int, category: int, *tlwh: float, crowd: int = 0) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": tlwh, "iscrowd": crowd}


def test_penn_fudan_boxes_become_zero_based(tmp_path: Path) -> None:
    example = penn_fudan(make_penn_fudan(tmp_path), PERSON)[0]
    assert example.boxes.tolist() == [[10, 20, 30, 60]]
    assert example.labels.tolist() == [1]


def test_an_annotation_without_boxes_or_image_is_named(tmp_path: Path) -> None:
    make_penn_fudan(tmp_path, "nothing")
    with pytest.raises(ValueError, match=r"a.txt: expected at least one line 'Bounding box"):
        penn_fudan(tmp_path, PERSON)
    (tmp_path / "PNGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a.txt: expected its image"):
        penn_fudan(tmp_path, PERSON)


def test_coco_boxes_of_the_requested_classes_become_corners(tmp_path: Path) -> None:
    rows = [box(8, 3, 1, 2, 3, 4), box(7, 1, 10, 20, 30, 40), box(8, 1, 0, 0, 9, 9, crowd=1), box(8, 1, 5, 6, 7, 8)]
    first, second = coco(make_coco(tmp_path, rows), ["person", "car"])
    assert (first.file.name, first.boxes.tolist(), first.labels.tolist()) == ("a.png", [[10, 20, 40, 60]], [1])
    assert (second.file.name, second.boxes.tolist()) == ("b.png", [[1, 2, 4, 6], [5, 6, 12, 14]])
    assert second.labels.tolist() == [2, 1]
    assert [len(one.boxes) for one in coco(tmp_path / "labels.json", ["car"])] == [0, 1]


def test_boxes_without_a_pixel_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [box(7, 1, 10, 20, 30, 40), box(7, 1, 10, 20, 0, 40), box(7, 1, 64, 20, 5, 5), box(7, 1, -9, 0, 11, 5)]
    with caplog.at_level(logging.WARNING):
        images = coco(make_coco(tmp_path, rows), ["person"])
    assert images[0].boxes[:, 0].tolist() == [10, -9]
    assert caplog.messages == [
        f"{tmp_path / 'labels.json'}: left out 2 boxes without a pixel in the image, first annotations[1]"
    ]


def test_coco_images_that_are_missing_or_outside_are_named(tmp_path: Path) -> None:
    file = make_coco(tmp_path, [], ("a.png", "c.png", "d.png"))
    with pytest.raises(
        ValueError, match=r"labels.json: 2 of 3 images are missing, first c.png: expected beside it, in"
    ):
        coco(file, ["person"])
    file.write_text(file.read_text().replace("c.png", "../../etc/c.png"))
    with pytest.raises(ValueError, match=r"labels.json: ../../etc/c.png leaves the data set's folder"):
        coco(file, ["person"])


def make_coco_layout(root: Path, json_name: str, image: str, name: str) -> Path:
    """A json with one image called `name`, whose file is `image`."""
    for file in (root / json_name, root / image):
        file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 80)).save(root / image)
    table = {
        "images": [{"id": 7, "file_name": name, "width": 64, "height": 80}],
        "annotations": [box(7, 1, 10, 20, 30, 40)],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / json_name).write_text(json.dumps(table))
    return root / json_name


@pytest.mark.parametrize(
    ("json_name", "image", "name"),
    [
        ("annotations/instances_train2017.json", "train2017/a.png", "a.png"),
        ("annotations/instances_train2017.json", "images/train2017/a.png", "a.png"),
        ("annotations/instances_train2017.json", "images/a.png", "a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "train2017/a.png"),
        ("annotations/instances_train2017.json", "train2017/a.png", "../train2017/a.png"),
        ("annotations/instances_train2017.json", "annotations/a.png", "a.png"),
        ("annotations/person_keypoints_val2017.json", "val2017/a.png", "a.png"),
        ("annotations/train.json", "train/b/a.png", "b/a.png"),
        ("annotations/train.json", "train/b/a.png", "b\\a.png"),
        ("annotations/train.json", "images/train/a.png", "train\\a.png"),
        ("train/_annotations.coco.json", "train/a.png", "a.png"),
        ("labels.json", "images/a.png", "a.png"),
        ("labels.json", "labels/a.png", "a.png"),
        ("labels.json", "a.png", "./a.png"),
        ("annotations/instances_train2017.json", "train2017/a b.png", "http://images.org/train2017/a%20b.png?size=1"),
        ("labels.json", "images/a.png", "https://images.org/a.png"),
        ("labels.json", "images/b/a.png", "/home/me/data/images/b/a.png"),
        ("labels.json", "images/b/a.png", "C:\\Users\\me\\b\\a.png"),
    ],
)
def test_coco_images_are_found_in_every_usual_layout(tmp_path: Path, json_name: str, image: str, name: str) -> None:
    (example,) = coco(make_coco_layout(tmp_path, json_name, image, name), ["person"])
    assert example.file == tmp_path / image
    assert example.boxes.tolist() == [[10, 20, 40, 60]]


def test_the_split_of_a_json_chooses_among_images_of_one_name(tmp_path: Path) -> None:
    for split in ("train", "val"):
        file = make_coco_layout(tmp_path, f"annotations/{split}.json", f"images/{split}/a.png", "a.png")
        assert coco(file, ["person"])[0].file == tmp_path / "images" / split / "a.png"


@pytest.mark.parametrize("linked", ["train2017", "train2017/a.png", "annotations/instances_train2017.json"])
def test_a_coco_data_set_may_consist_of_links(tmp_path: Path, linked: str) -> None:
    file = make_coco_layout(tmp_path / "set", "annotations/instances_train2017.json", "train2017/a.png", "a.png")
    (tmp_path / "set" / linked).rename(tmp_path / "elsewhere")
    (tmp_path / "set" / linked).symlink_to(tmp_path / "elsewhere")
    assert coco(file, ["person"])[0].file == tmp_path / "set/train2017/a.png"


@pytest.mark.parametrize("name", ["../../a.png", "../../set2/a.png", "..\\..\\a.png", "train/../../../a.png"])
def test_no_coco_image_leaves_the_data_set(tmp_path: Path, name: str) -> None:
    file = make_coco_layout(tmp_path / "set", "annotations/train.json", "../a.png", name)
    with pytest.raises(ValueError, match=r"train.json: .*a.png leaves the data set's folder"):
        coco(file, ["person"])


@pytest.mark.parametrize("name", ["/../a.png", "http://images.org/../a.png", "/etc/../../a.png"])
def test_no_coco_path_of_another_computer_leaves_the_data_set(tmp_path: Path, name: str) -> None:
    file = make_coco_layout(tmp_path / "set", "annotations/train.json", "../a.png", name)
    with pytest.raises(ValueError, match=r"train.json: 1 of 1 images are missing, first .*a.png"):
        coco(file, ["person"])


def test_two_names_of_one_coco_image_are_refused(tmp_path: Path) -> None:
    file = make_coco(tmp_path, [], ("http://x.org/1/a.png", "http://x.org/2/a.png"))
    with pytest.raises(ValueError, match=r"1/a.png and http://x.org/2/a.png are both .*a.png, expected each image"):
        coco(file, ["person"])


@pytest.mark.parametrize(
    ("invalid", "reason"),
    [
        ({"image_id": 7, "category_id": 1}, "without a bbox of four numbers"),
        ({"image_id": 7, "category_id": 1, "bbox": None}, "without a bbox of four numbers"),
        ({"image_id": 7, "category_id": 1, "bbox": []}, "without a bbox of four numbers"),
        ({"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}, "without a bbox of four numbers"),
        ({"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, None]}, "without a bbox of four numbers"),
        ({"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, float("nan")]}, "without a bbox of four numbers"),
        ({"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}, "of an image that is not listed"),
        ({"category_id": 1, "bbox": [1, 2, 3, 4]}, "of an image that is not listed"),
        ({"image_id": 7, "category_id": 99, "bbox": [1, 2, 3, 4]}, "of a category that is not listed"),
    ],
)
def test_an_annotation_that_is_not_valid_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, invalid: dict[str, object], reason: str
) -> None:
    rows = [box(7, 1, 10, 20, 30, 40), invalid, invalid, box(8, 1, 64, 20, 5, 5), box(8, 3, 5, 6, 7, 8)]
    with caplog.at_level(logging.WARNING):
        first, second = coco(make_coco(tmp_path, rows), ["person", "car"])
    assert (first.boxes.tolist(), second.boxes.tolist()) == ([[10, 20, 40, 60]], [[5, 6, 12, 14]])
    assert caplog.messages == [
        f"{tmp_path / 'labels.json'}: left out 2 annotations {reason}, first annotations[1]",
        f"{tmp_path / 'labels.json'}: left out 1 boxes without a pixel in the image, first annotations[3]",
    ]


def test_coco_annotations_none_of_which_has_a_box_are_refused(tmp_path: Path) -> None:
    file = make_coco(tmp_path, [{"image_id": 7, "caption": "a street"}])
    with pytest.raises(ValueError, match=r"labels.json: expected annotations with a bbox of a listed image"):
        coco(file, ["person"])


def test_coco_images_need_no_size(tmp_path: Path) -> None:
    file = make_coco(tmp_path, [box(7, 1, 10, 20, 30, 40), box(7, 1, 10, 20, 0, 40)])
    file.write_text(file.read_text().replace('"width": 64, "height": 80', '"license": 1'))
    assert coco(file, ["person"])[0].boxes.tolist() == [[10, 20, 40, 60]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[]", "TypeError"), ("{", "JSONDecodeError"), ('{"categories": []}', "KeyError 'images'")],
)
def test_json_that_is_not_coco_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x.json: expected COCO's json of images.*{reason}"):
        coco(tmp_path / "x.json", ["person"])


def test_classes_without_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes: cat is unknown, nearest: car"):
        find_examples(make_coco(tmp_path, []), ["cat"])
    make_penn_fudan(tmp_path)
    with pytest.raises(ValueError, match="its boxes are persons, expected person among classes, got car"):
        find_examples(tmp_path, ["car"])


def test_only_visible_considered_pedestrians_are_annotated(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 2, seed=0)
    sequence = find_sequences(tmp_path)[0]
    rows = ["1,1,11,11,100,200,1,1,1", "1,2,21,21,50,100,1,1,1", "1,3,300,11,50,100,1,1,1", "1,4,300,11,50,99,0,1,1"]
    (sequence.path / "gt" / "gt.txt").write_text("\n".join(rows))
    (group,) = find_examples(tmp_path, ["person"])
    assert [len(example.boxes) for example in group] == [2, 0]
    assert group[0].boxes[:, 0].tolist() == [10, 299]


def test_frames_in_gaps_of_numbered_images_are_no_examples(tmp_path: Path) -> None:
    make_dataset(tmp_path, 1, 6, seed=0)
    sequence = find_sequences(tmp_path)[0]
    for number in (3, 4):
        (sequence.path / f"img1/{number:06d}.jpg").unlink()
    (group,) = find_examples(tmp_path, ["person"])
    assert [int(example.file.stem) for example in group] == [1, 2, 5, 6]
