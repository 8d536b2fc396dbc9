import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from weince.lab.data.sets import load
from weince.lab.tasks.images import ready
from weince.lab.tasks.recipe.images import ImagesRecipe as Recipe
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


def shard(folder, name, start=0):
    parquet(folder / name, [picture(start + i)[1] for i in range(10)], [i % 2 for i in range(10)])


@pytest.mark.parametrize("total", [1, 2, 5, 12])
@pytest.mark.parametrize("ending", ["", "-a09b74b3ef9c3b56"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_shards_are_read_when_all_are_there_and_the_missing_ones_named(total, ending, part, tmp_path):
    other = {"train": "test", "test": "train"}[part]
    shard(tmp_path, f"{other}-00000-of-00001.parquet")
    names = [f"{part}-{number:05d}-of-{total:05d}{ending}.parquet" for number in range(total)]
    for number, name in enumerate(names):
        shard(tmp_path, name, 10 * number)
    splits = load(recipe(data_dir=tmp_path, batch_size=2))
    assert sum(len(images.labels) for images in splits[:3]) == 10 * (total + 1)
    for gone in range(0, total if total > 1 else 0, 3):
        (tmp_path / names[gone]).rename(tmp_path / "away")
        with pytest.raises(UserError, match=f"all {total} shards of {part}. Missing: {part}-{gone:05d}-of-{total:05d}"):
            load(recipe(data_dir=tmp_path, batch_size=2))
        (tmp_path / "away").rename(tmp_path / names[gone])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["00000-of-00030"], r"Missing: train-00001-of-00030\.parquet, .*train-00008-of-00030\.parquet and 21 more"),
        (["00001-of-00003", "00003-of-00003"], r"Missing: train-00002-of-00003\.parquet\.$"),  # counted from 1
        (["00000-of-00001", "00000-of-00002", "00001-of-00002"], "each of its shards one time"),
        (["00000-of-00001-aaaa", "00000-of-00001-bbbb"], "each of its shards one time"),
        (["00000-of-00001", "more"], "each of its shards one time"),
    ],
)
def test_shards_that_are_no_whole_set_are_refused(names, says, tmp_path):
    for name in names:
        shard(tmp_path, f"train-{name}.parquet")
    shard(tmp_path, "test.parquet")
    with pytest.raises(UserError, match=says):
        load(recipe(data_dir=tmp_path, batch_size=2))


@pytest.mark.parametrize("names", [["0", "1"], ["a", "b"], ["00001-of-00002", "00002-of-00002"]])
def test_other_names_of_several_files_are_read_as_they_come(names, tmp_path):
    for number, name in enumerate(names):
        shard(tmp_path, f"train-{name}.parquet", 10 * number)
    shard(tmp_path, "test.parquet")
    splits = load(recipe(data_dir=tmp_path, batch_size=2))
    assert len(splits.training.labels) + len(splits.validation.labels) == 20


def test_what_cannot_be_used_is_refused_with_the_reason(cifar, tmp_path):
    with pytest.raises(UserError, match="needs the folder"):
        load(recipe())
    with pytest.raises(UserError, match=r"should hold valid\.parquet"):
        load(recipe(data="tiny-imagenet", data_dir=cifar))
    with pytest.raises(UserError, match="no such folder"):
        load(recipe(data_dir=tmp_path / "none"))
    with pytest.raises(UserError, match=r"`batch_size`.*48.*Found 64"):
        ready(recipe(data_dir=cifar, batch_size=64))
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


@pytest.mark.parametrize("label", [-1, None, "cat"])
def test_labels_that_are_none_are_refused(cifar, label):
    parquet(cifar / "train.parquet", [picture(0)[1]], [label])
    with pytest.raises(UserError, match="row 0: labels should be integers"):
        load(recipe(data_dir=cifar))
