import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from weince.lab.data import load
from weince.lab.recipe import Recipe, RecipeError


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
    assert splits.classes[0] == "airplane"


def test_sharded_parquet_and_an_image_column(tmp_path):
    for shard in range(2):
        parquet(
            tmp_path / f"train-0000{shard}-of-00002.parquet",
            [picture(50 * shard + i, size=64)[1] for i in range(20)],
            [i % 2 for i in range(20)],
            "image",
        )
    parquet(tmp_path / "valid.parquet", [picture(i, size=64)[1] for i in range(8)], [i % 2 for i in range(8)], "image")
    (tmp_path / "classes.txt").write_text("n01443537\nn01629819\n")
    splits = load(recipe(data="tiny-imagenet", data_dir=tmp_path))
    assert len(splits.training.labels) + len(splits.validation.labels) == 40
    assert tuple(splits.test.pixels.shape) == (8, 3, 64, 64)
    assert splits.classes == ("n01443537", "n01629819")


def test_splits_follow_split_seed_and_nothing_else(cifar):
    first, again = load(recipe(data_dir=cifar, seeds=(1,))), load(recipe(data_dir=cifar, seeds=(2,)))
    other = load(recipe(data_dir=cifar, split_seed=1))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_subset_keeps_the_shares_of_the_classes(cifar):
    splits = load(recipe(data_dir=cifar, subset=40, test_subset=10))
    both = torch.cat([splits.training.labels, splits.validation.labels])
    assert torch.bincount(both).tolist() == [20, 20]
    assert torch.bincount(splits.test.labels).tolist() == [5, 5]


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_folder_of_images(tmp_path, layout):
    for part in ("train", "test") if layout == "split" else (".",):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(20):
                (tmp_path / part / name / f"{i}.jpg").write_bytes(picture(100 * label + i, size=40, fmt="JPEG")[1])
    splits = load(recipe(data="folder", data_dir=tmp_path, image_size=24))
    assert tuple(splits.training.pixels.shape[1:]) == (3, 24, 24)
    assert splits.classes == ("cat", "dog")
    assert len(splits.test.labels) == (40 if layout == "split" else 10)


def test_what_cannot_be_used_is_refused_with_the_reason(cifar, tmp_path):
    with pytest.raises(RecipeError, match="needs the folder"):
        load(recipe())
    with pytest.raises(RecipeError, match=r"should hold valid\.parquet"):
        load(recipe(data="tiny-imagenet", data_dir=cifar))
    with pytest.raises(RecipeError, match="no such folder"):
        load(recipe(data_dir=tmp_path / "none"))
    with pytest.raises(RecipeError, match=r"`batch_size`.*48.*Found 64"):
        load(recipe(data_dir=cifar, batch_size=64))
    with pytest.raises(RecipeError, match=r"`subset`.*60.*Found 61"):
        load(recipe(data_dir=cifar, subset=61))
    with pytest.raises(RecipeError, match="at least two classes"):
        load(recipe(data="folder", data_dir=cifar))
    parquet(cifar / "train.parquet", [picture(0)[1], b"no image"], [0, 1])
    with pytest.raises(RecipeError, match="row 1 is not a readable image"):
        load(recipe(data_dir=cifar))
    pq.write_table(pa.table({"pixels": [1], "label": [0]}), cifar / "train.parquet")
    with pytest.raises(RecipeError, match="columns img or image"):
        load(recipe(data_dir=cifar))
    (cifar / "train.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(RecipeError, match="not a readable parquet"):
        load(recipe(data_dir=cifar))
