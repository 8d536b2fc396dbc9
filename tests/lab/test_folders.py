"""Folders of images are read as torchvision's `ImageFolder` reads them, and what is left out is said."""

import itertools
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from weince.lab.data.folders import class_folders
from weince.lab.data.sets import load
from weince.lab.tasks.recipe.images import ImagesRecipe as Recipe
from weince.shell.errors import UserError

NUMBERS = itertools.count()


def image(path):
    """A small image, other than every other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(NUMBERS)
    Image.fromarray(np.full((4, 4, 3), (number % 256, number // 256, 7), dtype=np.uint8)).save(path, "PNG")


def classes(folder, names=("a", "b"), count=2):
    for name in names:
        for number in range(count):
            image(folder / name / f"{number}.png")


def as_torchvision(folder):
    held = ImageFolder(folder, lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return sorted((label, pixels.numpy().tobytes()) for pixels, label in held)


def as_weince(images):
    return sorted(
        (label, pixels.numpy().tobytes()) for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True)
    )


def test_nested_and_linked_folders_and_files_are_those_of_image_folder(tmp_path):
    root, aside = tmp_path / "root", tmp_path / "aside"
    classes(root, ("a", "b", "C"))
    for path in ("a/x/y/z/9.png", "a/x/8.PNG", "b/dir.png/7.png", "a/10.png", "a/2.png"):
        image(root / path)
    classes(aside, ("all", "one"))
    (root / "d").symlink_to(aside / "all")  # a class
    (root / "a" / "more").symlink_to(aside)  # a folder in a class, with folders
    (root / "b" / "of-a").symlink_to(root / "a" / "x")
    (root / "b" / "again").symlink_to(root / "a" / "x")  # twice, as there
    (root / "b" / "link.png").symlink_to(aside / "one" / "0.png")
    parts = class_folders(root, 4)
    assert as_weince(parts.training) == as_torchvision(root)
    assert parts.test is None
    assert parts.notes == ()
    assert class_folders(root, 4).training.pixels.equal(parts.training.pixels)


def test_order_is_that_of_the_sorted_paths(tmp_path):
    names = ["b.png", "a/z.png", "a.png", "a/b/c.png", "B.png", "10.png", "2.png"]
    for name in names:
        image(tmp_path / "a" / name)
    classes(tmp_path, ["b"])
    wanted = [np.asarray(Image.open(path))[0, 0] for path in sorted(tmp_path / "a" / name for name in names)]
    pixels = class_folders(tmp_path, 4).training.pixels
    assert np.array_equal(pixels[: len(names), :, 0, 0], np.stack(wanted))


@pytest.mark.parametrize("target", [".", "..", "../..", "../b/back", "x", "x/y"])
def test_link_loops_end_and_read_nothing_twice(target, tmp_path):
    root = tmp_path / "root"
    classes(root)
    image(root / "a" / "x" / "y" / "0.png")
    wanted = as_torchvision(root)
    (root / "b" / "back").symlink_to("../a")
    at = root / "a" / "x" / "y" / "loop" if target.startswith("x") else root / "a" / "loop"
    at.symlink_to(root / "a" / target)
    (root / "a" / "self").symlink_to("self")
    (root / "loop").symlink_to(".")  # no class either
    parts = class_folders(root, 4)
    assert set(as_weince(parts.training)) >= set(wanted)
    assert parts.training.labels.tolist().count(0) == 3
    assert parts.training.labels.tolist().count(1) == 5  # its own two, and the three of the linked class
    assert "linked to a folder above it" in parts.notes[0]


def test_folders_linked_to_each_other_end(tmp_path):
    names = ["a", "b", "c", "d"]
    classes(tmp_path, names, 1)
    for one, other in itertools.permutations(names, 2):
        (tmp_path / one / f"to-{other}").symlink_to(tmp_path / other)
    assert len(class_folders(tmp_path, 4).training.labels) == 4 * (1 + 3 + 6 + 6)


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path):
    classes(tmp_path)
    wanted = as_torchvision(tmp_path)
    for path in (".ipynb_checkpoints/0.png", "a/.ipynb_checkpoints/0.png", "a/.0.png", "b/.x/y/0.png", ".git/0.png"):
        image(tmp_path / path)
    (tmp_path / "a" / "._0.png").write_bytes(b"what a file system leaves")
    (tmp_path / ".linked").symlink_to(tmp_path / "a")
    parts = class_folders(tmp_path, 4)
    assert as_weince(parts.training) == wanted
    assert parts.notes == ()


def test_what_is_no_image_by_name_is_counted_and_said(tmp_path):
    classes(tmp_path, count=10)
    for name in ("a/list.txt", "a/x/list.TXT", "b/0.json", "b/README", "names.csv", "a/0.png.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    told = "6 files or links were left out: 1 .json, 1 .part, 2 .txt, 1 beside the classes, 1 without a suffix."
    splits = load(Recipe(data="folder", data_dir=tmp_path, batch_size=4))
    assert splits.notes == (told,)
    assert set(splits._asdict()) == {"training", "validation", "test", "pretraining"}
    assert len(splits[:3]) + 1 == len(tuple(splits)) == 4


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPEG", "jpe", "jfif", "JFIF", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm"]
)
def test_images_of_every_suffix_are_read(suffix, tmp_path):
    classes(tmp_path)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a" / f"x.{suffix}")
    assert len(class_folders(tmp_path, 4).training.labels) == 5


def test_avif_is_read_where_pillow_reads_it(tmp_path):
    classes(tmp_path)
    if ".avif" in Image.registered_extensions():
        Image.new("RGB", (4, 4), "red").save(tmp_path / "a" / "x.avif")
        assert len(class_folders(tmp_path, 4).training.labels) == 5
    else:
        (tmp_path / "a" / "x.avif").write_bytes(b"an image")
        assert ".avif" in class_folders(tmp_path, 4).notes[0]


@pytest.mark.parametrize("training", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "VAL", "valid", "validation", "Eval", "evaluation"])
def test_parts_are_no_classes(training, test, tmp_path):
    for part in (training, test):
        classes(tmp_path / part, ("a", "b", "c"))
    parts = class_folders(tmp_path, 4)
    assert as_weince(parts.training) == as_torchvision(tmp_path / training)
    assert as_weince(parts.test) == as_torchvision(tmp_path / test)
    assert parts.training.labels.unique().tolist() == [0, 1, 2]
    assert parts.notes == ()


def test_of_several_test_parts_one_with_classes_is_read_and_the_rest_said(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "Val")
    classes(tmp_path / "extra")
    image(tmp_path / "test" / "0.png")  # without classes, as published without labels
    parts = class_folders(tmp_path, 4)
    assert as_weince(parts.test) == as_torchvision(tmp_path / "Val")
    assert parts.notes == ("Beside train and Val, folders were left out: extra, test.",)


@pytest.mark.parametrize(
    "names", [["train"], ["Training", "extra"], ["test"], ["a", "b", "Val"], ["train", "Train", "test"], ["train", "a"]]
)
def test_a_part_without_the_other_is_refused(names, tmp_path):
    for name in names:
        classes(tmp_path / name)
    with pytest.raises(UserError, match=f"one training part .* and a test part .*Found {', '.join(sorted(names))}"):
        class_folders(tmp_path, 4)


@pytest.mark.parametrize("part", ["Train", "Test"])
@pytest.mark.parametrize("alone", [["d"], ["A", "Z"]])
def test_a_class_that_only_one_part_has_is_named(part, alone, tmp_path):
    for name in ("Train", "Test"):
        classes(tmp_path / name, ["a", "b", *(alone if name == part else [])])
    told = ", ".join(f"{name} in {part} alone" for name in alone)
    with pytest.raises(UserError, match=f"the same classes. Found {told}"):
        class_folders(tmp_path, 4)


def test_classes_that_are_none_or_empty_are_named(tmp_path):
    with pytest.raises(UserError, match=r"at least two classes.*no folder"):
        class_folders(tmp_path / "none")
    classes(tmp_path, ["a"])
    with pytest.raises(UserError, match=r"at least two classes.*: a"):
        class_folders(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "0.txt").write_text("no image")
    with pytest.raises(UserError, match=r"b should hold images.*\.png"):
        class_folders(tmp_path)


def test_a_link_to_nothing_and_a_pipe_are_named(tmp_path):
    classes(tmp_path)
    (tmp_path / "a" / "gone.png").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"gone\.png is not a readable image: No such file"):
        class_folders(tmp_path)
    (tmp_path / "a" / "gone.png").unlink()
    os.mkfifo(tmp_path / "a" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png.*no regular file"):
        class_folders(tmp_path)


@pytest.mark.parametrize("parted", [False, True])
def test_a_comparison_reads_a_folder(parted, tmp_path):
    for part in ("train", "valid") if parted else (".",):
        classes(tmp_path / part, count=20)
    splits = load(Recipe(data="folder", data_dir=tmp_path, image_size=24, batch_size=8))
    assert tuple(splits.training.pixels.shape[1:]) == (3, 24, 24)
    assert splits.training.labels.unique().tolist() == [0, 1]
    assert len(splits.test.labels) == (40 if parted else 10)
