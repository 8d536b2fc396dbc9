import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from weince.lab.tasks.recipe import Recipe

from weince.lab.data.sets import load
from weince.shell.errors import UserError


def picture(seed, size=32, fmt="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, fmt)
    return pixels, buffer.getvalue()


def parquet(path, contents, labels, column="img"):
    images = pa.array([{"bytes": c, "path": None} for c in contents])
    pq.write_table(pa.table({column: images, "label": pa.array(labels)}), path)


@pytest.fixture
def cifar(tmp_path):
    for part, count, offset in (("train", 60, 0), ("test", 20, 1000)):
        parquet(
            tmp_path / f"{part}.parquet", [picture(offset + i)[1] for i in range(count)], [i % 2 for i in range(count)]
        )
    return tmp_path


def recipe(**settings):
    return Recipe(**({"data": "cifar10", "batch_size": 8} | settings))


def test_digits_are_the_real_ones_and_split_evenly():
    splits = load(Recipe())
    assert tuple(splits.training.pixels.shape[1:]) == (1, 8, 8)
    assert splits.training.pixels.dtype == torch.uint8
    assert splits.training.pixels.max() == 255
    assert sum(len(part.labels) for part in splits[:3]) == 1797
    for part in splits[:3]:
        share = torch.bincount(part.labels).double() / len(part.labels)
        assert (share - 0.1).abs().max() < 0.01


def test_parquet_pixels_and_labels_are_what_was_written(cifar):
    splits = load(recipe(data_dir=cifar))
    assert np.array_equal(splits.test.pixels[3].permute(1, 2, 0), picture(1003)[0])
    assert splits.test.labels[:4].tolist() == [0, 1, 0, 1]
    assert (len(splits.training.labels), len(splits.validation.labels), len(splits.test.labels)) == (48, 12, 20)


def test_sharded_parquet_and_an_image_column(tmp_path):
    for shard in range(2):
        parquet(
            tmp_path / f"train-0000{shard}-of-00002.parquet",
            [picture(50 * shard + i, size=64)[1] for i in range(20)],
            [i % 2 for i in range(20)],
            "image",
        )
    parquet(tmp_path / "valid.parquet", [picture(i, size=64)[1] for i in range(8)], [i % 2 for i in range(8)], "image")
    splits = load(recipe(data="tiny-imagenet", data_dir=tmp_path))
    assert len(splits.training.labels) + len(splits.validation.labels) == 40
    assert tuple(splits.test.pixels.shape) == (8, 3, 64, 64)


def test_splits_follow_split_seed_and_nothing_else(cifar):
    first, again = load(recipe(data_dir=cifar, seeds=(1,))), load(recipe(data_dir=cifar, seeds=(2,)))
    other = load(recipe(data_dir=cifar, split_seed=1))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_subset_keeps_the_shares_of_the_classes(cifar):
    splits = load(recipe(data_dir=cifar, subset=40, test_subset=10))
    both = torch.cat([splits.training.labels, splits.validation.labels])
    assert torch.bincount(both).tolist() == [20, 20]
    assert torch.bincount(splits.test.labels).tolist() == [5, 5]


@pytest.mark.parametrize("layout", ["flat", "test", "val"])
def test_folder_of_images(tmp_path, layout):
    for part in (".",) if layout == "flat" else ("train", layout):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(20):
                (tmp_path / part / name / f"{i}.jpg").write_bytes(picture(100 * label + i, size=40, fmt="JPEG")[1])
    splits = load(recipe(data="folder", data_dir=tmp_path, image_size=24))
    assert tuple(splits.training.pixels.shape[1:]) == (3, 24, 24)
    assert splits.training.labels.unique().tolist() == [0, 1]
    assert len(splits.test.labels) == (10 if layout == "flat" else 40)


def test_what_cannot_be_used_is_refused_with_the_reason(cifar, tmp_path):
    with pytest.raises(UserError, match="needs the folder"):
        load(recipe())
    with pytest.raises(UserError, match=r"should hold valid\.parquet"):
        load(recipe(data="tiny-imagenet", data_dir=cifar))
    with pytest.raises(UserError, match="no such folder"):
        load(recipe(data_dir=tmp_path / "none"))
    with pytest.raises(UserError, match=r"`batch_size`.*48.*Found 64"):
        load(recipe(data_dir=cifar, batch_size=64))
    with pytest.raises(UserError, match=r"`subset`.*60.*Found 61"):
        load(recipe(data_dir=cifar, subset=61))
    with pytest.raises(UserError, match="at least two classes"):
        load(recipe(data="folder", data_dir=cifar))
    parquet(cifar / "train.parquet", [picture(0)[1], b"no image"], [0, 1])
    with pytest.raises(UserError, match="row 1 is not a readable image"):
        load(recipe(data_dir=cifar))
    pq.write_table(pa.table({"pixels": [1], "label": [0]}), cifar / "train.parquet")
    with pytest.raises(UserError, match="columns img or image"):
        load(recipe(data_dir=cifar))
    (cifar / "train.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(UserError, match="not a readable parquet"):
        load(recipe(data_dir=cifar))


def folder_with(tmp_path, name, content):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(12):
            (tmp_path / label / f"{i}.png").write_bytes(picture(i)[1])
    (tmp_path / "a" / name).write_bytes(content)
    return recipe(data="folder", data_dir=tmp_path)


def encoded(array, mode, fmt="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode).save(buffer, fmt) if mode else Image.fromarray(array).save(buffer, fmt)
    return buffer.getvalue()


def test_transparency_lies_on_white_and_hidden_files_are_no_images(tmp_path):
    clear = encoded(np.zeros((32, 32, 4), dtype=np.uint8), None)
    wanted = folder_with(tmp_path, "clear.png", clear)
    (tmp_path / "a" / "._0.png").write_bytes(b"what a file system leaves")
    (tmp_path / ".cache").mkdir()
    pixels = torch.cat([part.pixels for part in load(wanted)[:3]])
    assert len(pixels) == 25
    assert (pixels == 255).all(dim=(1, 2, 3)).sum() == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("deep.png", encoded(np.full((8, 8), 40000, dtype=np.uint16), None), "8 bits a channel"),
        ("cut.png", picture(0)[1][:200], "not a readable image"),
        ("text.jpg", b"hello", "not a readable image"),
    ],
)
def test_images_that_would_be_ruined_are_refused_by_name(tmp_path, name, content, says):
    with pytest.raises(UserError, match=says) as error:
        load(folder_with(tmp_path, name, content))
    assert name in str(error.value)


def test_a_train_folder_without_a_test_part_is_not_taken_for_classes(tmp_path):
    for part in ("train", "extra"):
        (tmp_path / part).mkdir()
    with pytest.raises(UserError, match="holds train and should hold one of test"):
        load(recipe(data="folder", data_dir=tmp_path))


@pytest.mark.parametrize("label", [-1, None, "cat"])
def test_labels_that_are_none_are_refused(cifar, label):
    parquet(cifar / "train.parquet", [picture(0)[1]], [label])
    with pytest.raises(UserError, match="row 0: labels should be integers"):
        load(recipe(data_dir=cifar))
