"""Run by every process of a gloo group: each setting, gathered, against the concatenated batch in one process.

python same_as_one.py WORLD[,WORLD...] PART...

Processes are forked from one that has imported everything: importing takes longer than most parts. What torchrun adds
is tested by lightning_same.py and test_training.py.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import weince.tiles.sweep
from weince import (
    INFONCE,
    Gate,
    QueueLoss,
    ReleasedTopMLoss,
    RetrievalLoss,
    SupervisedLoss,
    TailFit,
    TwoTowerLoss,
    WEINCELoss,
    contest_loss,
    query_key_loss,
    weince_loss,
)
from weince.processes import gather
from weince.setups import two_views

N, D, H = 12, 6, 2
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
GATES = {
    "paper": Gate(tail_min=6),
    "infonce": INFONCE,
    "cautious": Gate(evidence="beaten*endpoint", kappa_end=1.0),
    "bounded": Gate(evidence="nearness", slope_max=2.0, slope_estimator="maximum_likelihood"),
}


def data(world: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """The concatenated batch, the same on every process."""
    g = torch.Generator().manual_seed(world)
    total = world * N
    centres = torch.randn(5, D, generator=g, dtype=torch.float64)
    label = torch.arange(total) % 5

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, D, generator=g, dtype=torch.float64)

    found = {name: centres[label] + rows(total) for name in ("a", "b")}
    found |= {"own": rows(total, H), "shared": rows(H), "weight": torch.rand(total, generator=g, dtype=torch.float64)}
    found = {name: value.to(dtype) for name, value in found.items()}
    numbers = {"label": torch.arange(total) % 7, "id": torch.arange(total, dtype=torch.int16) % 9}
    return found | numbers | {"negative_id": torch.randint(12, (total, H), generator=g)}


def of_processes(world: int, here: int | None, mask: Tensor) -> Tensor:
    """A mask of pairs within a process, (N, N): of one process, or of all, where it lies on the diagonal."""
    return mask if here is not None else torch.block_diag(*[mask] * world).bool()


def cases(x: dict[str, Tensor], options: dict, extras: bool, world: int, here: int | None) -> dict:
    """Setup -> loss of its leaves.

    Args:
        x: the batch, of this process or of all.
        options: of the loss.
        extras: whether weights, masks and ids are given.
        world: how many processes.
        here: which this is; None for one that has the whole batch.
    """
    weight = {"sample_weight": x["weight"]} if extras else {}
    ids = {"ids": x["id"]} if extras else {}
    small = torch.zeros(N, N, dtype=torch.bool)
    small[3, 5] = small[4, 1] = small[0, 7] = True
    mask = of_processes(world, here, small)
    masked = {"ignored": mask} if extras else {}
    of_views = {"ignored": torch.cat([torch.cat([mask, mask.T], 1)] * 2)} if extras else {}

    def queue(query: Tensor, key: Tensor) -> Tensor:
        criterion = QueueLoss(40, D, 0.2, **options).to(query.dtype)
        first = criterion(query, key, **weight, **ids)
        return first + criterion(query.flip(1), key, **weight, **ids)  # against the keys that have come in

    found = {
        "two views": (("a", "b"), lambda a, b: WEINCELoss(0.2, **options)(a, b, **weight, **of_views, **ids)),
        "two towers": (("a", "b"), lambda a, b: TwoTowerLoss(0.2, **options)(a, b, **weight, **masked, **ids)),
        "labels": (("a",), lambda a: SupervisedLoss(0.2, **options)(a, x["label"], **weight, **masked)),
        "labels against others": (
            ("a", "b"),
            lambda a, b: SupervisedLoss(0.2, **options)(a, x["label"], b, x["label"], **weight, **masked),
        ),
        "in-batch": (("a", "b"), lambda a, b: RetrievalLoss(0.2, **options)(a, b, **weight, **masked, **ids)),
        "own negatives, in batch": (
            ("a", "b", "own"),
            lambda a, b, n: RetrievalLoss(0.2, **options)(
                a, b, n, **weight, **ids, **({"negative_ids": x["negative_id"]} if extras else {})
            ),
        ),
        "own negatives alone": (
            ("a", "b", "own"),
            lambda a, b, n: RetrievalLoss(0.2, in_batch=False, **options)(a, b, n, **weight),
        ),
        "shared negatives alone": (
            ("a", "b"),
            lambda a, b: RetrievalLoss(0.2, in_batch=False, **options)(a, b, x["shared"], **weight),
        ),
        "queue": (("a", "b"), queue),
        "queries and keys": (("a", "b"), lambda a, b: query_key_loss(a, b, None, 0.2, **options, **weight, **ids)),
    }
    if extras:  # who is whose positive, within a process
        same = of_processes(world, here, torch.arange(N)[:, None] % 4 == torch.arange(N) % 4)
        found["labels by a matrix"] = (("a",), lambda a: SupervisedLoss(0.2, **options)(a, same, **weight))
    return found


def value_and_gradients(names: tuple[str, ...], loss, x: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    leaves = [x[name].clone().requires_grad_() for name in names]
    value = loss(*leaves)
    value.backward()
    return value.detach(), [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


def relative(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """Largest error, of the largest entry."""
    return float((found - expected).abs().max() / (expected if scale is None else scale).abs().max().clamp_min(1e-12))


def near(found: Tensor, expected: Tensor, tolerance: float, what: str, scale: Tensor | None = None) -> None:
    error = relative(found, expected, scale)
    assert error <= tolerance, f"{what}: {error:.2e}"


Settings = tuple[torch.dtype, str, str, str, bool]
ALL: list[Settings] = [*itertools.product(TOLERANCE, GATES, ("dense", "tiled"), ("mean", "sum"), (False, True))]


def every_setting(rank: int, world: int) -> None:
    compare(ALL, rank, world)


def a_quarter_of_settings(rank: int, world: int) -> None:
    """Another one for each of four numbers of processes.

    It has every dtype with every path, reduction and extras, each with one gate; and every gate with each of them.
    """
    dtypes, gates = [*TOLERANCE], [*GATES]
    some = [
        s
        for s in ALL
        if (dtypes.index(s[0]) + gates.index(s[1]) + (s[2] == "tiled") + (s[3] == "sum") + s[4] - world) % 4 == 0
    ]
    assert len({(dtype, *rest) for dtype, _, *rest in some}) == len(some) == len(ALL) // 4
    for place in (0, 2, 3, 4):
        assert {(s[1], s[place]) for s in some} == {(s[1], s[place]) for s in ALL}
    compare(some, rank, world)


def compare(settings: list[Settings], rank: int, world: int) -> None:
    mine = slice(rank * N, (rank + 1) * N)
    count = 0
    for dtype, name, how, reduction, extras in settings:
        x = data(world, dtype)
        own = {key: value if key == "shared" else value[mine] for key, value in x.items()}
        decoupled = extras and reduction == "sum"
        options = {"gate": GATES[name], "implementation": how, "reduction": reduction, "decoupled": decoupled}
        one = cases(x, options, extras, world, None)
        many = cases(own, options | {"gather_distributed": True}, extras, world, rank)
        for setting, (names, loss) in one.items():
            what = f"{setting}, {name}, {how}, {reduction}, {dtype}, extras {extras}, {world} processes"
            expected, gradients = value_and_gradients(names, loss, x)
            allowed = [TOLERANCE[dtype]] * len(gradients)
            if dtype == torch.float32:
                # Float32 rounds the fits: one process is up to 1e-5 from the exact gradient itself. Gathered, it may be
                # 1e-6 from that, or twice as far as one process is.
                exactly = {key: value.double() if value.is_floating_point() else value for key, value in x.items()}
                exact = value_and_gradients(names, cases(exactly, options, extras, world, None)[setting][1], exactly)[1]
                distances = [relative(part, exact_one) for part, exact_one in zip(gradients, exact, strict=True)]
                allowed = [max(TOLERANCE[dtype], 2 * distance) for distance in distances]
                gradients = exact
            value, found = value_and_gradients(names, many[setting][1], own)
            near(value, expected, TOLERANCE[dtype], what)
            for part, exact_one, tolerance in zip(found, gradients, allowed, strict=True):
                # Averaged over processes, as DistributedDataParallel does with the gradients of parameters.
                near(part / world, exact_one[mine], tolerance, what + ", gradient", scale=exact_one)
            count += 1
    print(f"{count} setups agree")


def statistics(rank: int, world: int) -> None:
    """Weights and fits are those of the own anchors in the whole batch; none is reduced."""
    x = data(world, torch.float64)
    mine = slice(rank * N, (rank + 1) * N)
    for gate, how in itertools.product((GATES["paper"], GATES["cautious"]), ("dense", "tiled")):
        everyone, own = (
            WEINCELoss(0.2, gate, "none", implementation=how, gather_distributed=gathers).output(
                x["a"][rows], x["b"][rows]
            )
            for rows, gathers in ((slice(None), False), (mine, True))
        )
        views = torch.cat([torch.arange(len(x["a"]))[mine] + view * len(x["a"]) for view in (0, 1)])
        near(own.loss, everyone.loss[views], 1e-12, "per anchor")
        near(own.weight, everyone.weight[views], 1e-12, "weight")
        assert everyone.weight.max() > 0.01
        assert own.tail is not None
        assert everyone.tail is not None
        near(own.tail.slope, everyone.tail.slope[views], 1e-12, "slope")
    # The released terms: one running slope from the pool of all.
    one, many = (ReleasedTopMLoss(0.2, 7, gather_distributed=gather).double() for gather in (False, True))
    for flip in (False, True):
        a, b = (x[name].flip(1) if flip else x[name] for name in ("a", "b"))
        expected, gradients = value_and_gradients(("a", "b"), one, {"a": a, "b": b})
        value, found = value_and_gradients(("a", "b"), many, {"a": a[mine], "b": b[mine]})
        near(value, expected, 1e-12, "released")
        near(many.slope, one.slope, 1e-12, "released slope")
        for part, gradient in zip(found, gradients, strict=True):
            near(part / world, gradient[mine], 1e-12, "released, gradient", scale=gradient)


def trained(rank: int, world: int) -> None:
    """DistributedDataParallel, gradient accumulation, a learnable temperature, and compilation."""
    x = data(world, torch.float64)
    mine = slice(rank * N, (rank + 1) * N)

    class Model(nn.Module):
        def __init__(self, gather: bool) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.encoder = nn.Sequential(nn.Linear(D, 16), nn.Tanh(), nn.Linear(16, D)).double()
            self.temperature = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
            self.criterion = WEINCELoss(self.temperature, GATES["paper"], gather_distributed=gather)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.criterion(self.encoder(a), self.encoder(b))

    def steps(model: nn.Module, rows: slice) -> list[Tensor]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for step in range(4):  # two batches a step
            for flip in (False, True):
                a, b = x["a"][rows], x["b"][rows]
                loss = model(a.flip(1), b.flip(1)) if flip else model(a, b)
                (loss / 2).backward()
                losses.append(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
            del step
        return [*losses, *(p.detach() for p in model.parameters())]

    alone = steps(Model(False), slice(None))
    for compiled in (False, True):
        model = Model(True)
        if compiled:
            model.criterion = torch.compile(model.criterion, backend="aot_eager", fullgraph=True)
        for found, expected in zip(steps(DistributedDataParallel(model), mine), alone, strict=True):
            near(found, expected, 1e-11, f"trained, compiled {compiled}")


def refused(rank: int, world: int) -> None:
    """What does not fit together is refused on every process, at once."""
    from weince.adapters import lightly, open_clip, sentence_transformers

    rows = N - (rank == world - 1)
    z = torch.randn(rows, D)
    try:
        WEINCELoss(gather_distributed=True)(z, z)
    except ValueError as error:
        text = str(error)
        assert "process 0: (24, 6) anchors" in text, text
        assert f"process {world - 1}: (22, 6) anchors" in text, text
    else:
        raise AssertionError("an uneven batch was taken")
    # One process refuses by itself, and the others are told, whatever the door.
    z = torch.randn(N, D)
    z[2, 1] = torch.nan if rank == 0 else 0.0
    short, first = z[: N - (rank == 0)], rank == 0
    labels = torch.arange(N)
    model = nn.Identity()
    places = {"local_loss": True, "gather_with_grad": True, "rank": rank, "world_size": world}
    doors = {
        "module": lambda: WEINCELoss(gather_distributed=True, check_finite=True)(z, z),
        "two towers": lambda: TwoTowerLoss(gather_distributed=True)(z, short),
        "queue": lambda: QueueLoss(8, D, gather_distributed=True)(z, short),
        "ids": lambda: TwoTowerLoss(gather_distributed=True)(z, z, ids=labels.float() if first else labels),
        "labels": lambda: SupervisedLoss(gather_distributed=True)(z, labels.float() if first else labels),
        "released": lambda: ReleasedTopMLoss(gather_distributed=True)(z, short),
        "function": lambda: weince_loss(z, short, gather_distributed=True),
        "function, options": lambda: weince_loss(z, z, 0.1, gather_distributed=True, eps=2.0 if first else 0.1),
        "function, temperature": lambda: weince_loss(z, z, -1.0 if first else 0.1, gather_distributed=True),
        "queries and keys": lambda: query_key_loss(z, short, gather_distributed=True),
        "contest": lambda: contest_loss(two_views(z, z), -1.0 if first else 0.1, gather_distributed=True),
        "lightly": lambda: lightly.WEINCELoss(gather_distributed=True)(z, short),
        "open_clip": lambda: open_clip.WEINCELoss(**places)(z, short, torch.tensor(10.0)),
        "sentence-transformers": lambda: sentence_transformers.WEINCELoss(
            model, gather_across_devices=True
        ).compute_loss_from_embeddings([z, short]),
        "only one has ids": lambda: TwoTowerLoss(gather_distributed=True)(z, z, ids=labels if first else None),
    }
    for door, call in doors.items():
        told = ""
        try:
            call()
        except (TypeError, ValueError) as error:
            told = str(error)
        assert "process 0: " in told, f"{door}: {told}"
        assert door == "only one has ids" or "process 0: refused: Parameter `" in told, f"{door}: {told}"
    # Queues that differ give every process another loss.
    criterion = QueueLoss(8, D, gather_distributed=True)
    criterion.queue.append(torch.randn(3 + rank, D))
    with pytest.raises(ValueError, match=r"the queue should be the same.*process 0: a queue of 3 keys"):
        criterion(z, z)
    # Compiled, shapes that differ are refused too, where a graph would wait.
    torch.compiler.reset()
    compiled = torch.compile(WEINCELoss(gather_distributed=True), backend="aot_eager")
    z = torch.randn(rows, D)
    with pytest.raises(ValueError, match=rf"process 0: \({2 * N}, {D}\) rows"):
        compiled(z, z)
    dist.barrier()


def one_row_each(rank: int, world: int) -> None:
    """A batch of W rows, one on each process."""
    from weince.adapters import lightly

    a, b = torch.randn(2, world, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected, gradients = value_and_gradients(("a", "b"), WEINCELoss(0.2), {"a": a, "b": b})
    own = {"a": a[rank : rank + 1], "b": b[rank : rank + 1]}
    for criterion in (WEINCELoss(0.2, gather_distributed=True), lightly.WEINCELoss(0.2, gather_distributed=True)):
        value, found = value_and_gradients(("a", "b"), criterion, own)
        near(value, expected, 1e-12, "one row each")
        for part, gradient in zip(found, gradients, strict=True):
            near(part / world, gradient[rank : rank + 1], 1e-12, "one row each, gradient", scale=gradient)


def recomputed(rank: int, world: int) -> None:
    """A queue of everyone's keys, under a checkpoint, is as it was."""
    x = data(world, torch.float64)
    rows = slice(rank * N, (rank + 1) * N)
    found = []
    for again in (True, False):
        criterion = QueueLoss(40, D, 0.2, gather_distributed=True).double()
        for flip in (False, True):
            query, key = (x[name][rows].flip(1) if flip else x[name][rows] for name in ("a", "b"))
            query = query.clone().requires_grad_()
            loss = checkpoint(criterion, query, key, use_reentrant=False) if again else criterion(query, key)
            loss.backward()
        found.append((query.grad, criterion.queue.rows))
    for one, other in zip(*found, strict=True):
        near(one, other, 1e-12, "recomputed")


def companion(rank: int, world: int) -> None:
    """A group that moves tensors of GPUs alone agrees on the host all the same, through a group made once."""
    real, made = (dist.get_backend_config, dist.new_group), []

    def new_group(*args: object, **options: object) -> object:
        made.append(options)
        return real[1](*args, **options)

    group = dist.new_group(list(range(world)))
    dist.get_backend_config, dist.new_group = lambda group=None: "cuda:nccl", new_group
    gather._on_host.cache_clear()
    z = torch.randn(N, D)
    for step, criterion in enumerate(
        (WEINCELoss(gather_distributed=True), WEINCELoss(gather_distributed=True, group=group)), 1
    ):
        for _ in range(2):
            criterion(z, z)
        assert len(made) == step, made
        assert made[-1] == {"backend": "gloo", "use_local_synchronization": step == 2}
        with pytest.raises(ValueError, match=r"process 0: \(24, 6\) anchors"):
            criterion(z[: N - (rank == 1)], z[: N - (rank == 1)])
    dist.get_backend_config, dist.new_group = real
    gather._on_host.cache_clear()


def groups(rank: int, world: int) -> None:
    """Two halves of four processes, each a batch of its own, as with tensor or pipeline parallelism."""
    halves = [[0, 1], [2, 3]]
    made = [dist.new_group(ranks) for ranks in halves]
    mine = rank // 2
    x = data(2, torch.float64)
    if mine:
        x = {name: value.flip(0) for name, value in x.items()}
    rows = slice((rank % 2) * N, (rank % 2 + 1) * N)
    own = {name: value if name == "shared" else value[rows] for name, value in x.items()}
    for how in ("dense", "tiled"):
        for group in (made[mine], made[mine].group_name):
            options = {"gate": GATES["paper"], "implementation": how}
            one = cases(x, options, True, 2, None)
            many = cases(own, options | {"gather_distributed": True, "group": group}, True, 2, rank % 2)
            for setup, (names, loss) in one.items():
                expected, gradients = value_and_gradients(names, loss, x)
                value, found = value_and_gradients(names, many[setup][1], own)
                near(value, expected, 1e-12, setup)
                for part, gradient in zip(found, gradients, strict=True):
                    near(part / 2, gradient[rows], 1e-12, setup, scale=gradient)
    # A refusal is told to the group alone.
    z = torch.randn(N - (rank == 0), D)
    refused = pytest.raises(ValueError, match=r"process 1: \(24, 6\) anchors") if mine == 0 else nullcontext()
    with refused:
        WEINCELoss(gather_distributed=True, group=made[mine])(z, z)
    compiled = torch.compile(WEINCELoss(0.2, gather_distributed=True, group=made[mine]), backend="aot_eager")
    found = compiled(own["a"], own["b"])
    near(found.detach(), WEINCELoss(0.2)(x["a"], x["b"]), 1e-12, "compiled")
    with pytest.raises(ValueError, match="Parameter `group` should be a group of this process"):
        WEINCELoss(gather_distributed=True, group=made[1 - mine])


def counted(rank: int, world: int) -> None:
    """Numbers moved and products taken by a step of one process are those that docs/distributed.md says."""
    moved = {"all_gather": 0, "all_reduce": 0}
    real = {name: getattr(dist, name) for name in moved}

    def all_gather(parts, own, *args, **options):
        moved["all_gather"] += sum(part.numel() * part.element_size() for part in parts)
        return real["all_gather"](parts, own, *args, **options)

    def all_reduce(value, *args, **options):
        moved["all_reduce"] += value.numel() * value.element_size()
        return real["all_reduce"](value, *args, **options)

    dist.all_gather, dist.all_reduce = all_gather, all_reduce
    n, d = 48, 32
    torch.manual_seed(rank)
    z_a, z_b = (torch.randn(n, d, requires_grad=True) for _ in range(2))
    criterion = WEINCELoss(0.2, implementation="tiled", gather_distributed=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        criterion(z_a, z_b).backward()
    dist.all_gather, dist.all_reduce = real["all_gather"], real["all_reduce"]
    candidates, anchors, fields = 2 * n * world, 2 * n, len(TailFit._fields)
    products = 0.0
    for event in profile.events():
        # The matrices that are multiplied: the last two of addmm's, the first two of mm's, which may have an `out`.
        if event.name in ("aten::mm", "aten::addmm", "aten::addmm_"):
            left, right = event.input_shapes[:2] if event.name == "aten::mm" else event.input_shapes[1:3]
            products += left[0] * left[1] * right[1] / (anchors * candidates * d)
    # Line fits are products too, of a per cent of one.
    assert abs(products - 4) < 0.05 if world > 1 else 2.95 < products < 4, products
    if world > 1:
        described = 256 * world
        assert moved["all_gather"] == 4 * candidates * (d + fields) + described, moved
        assert moved["all_reduce"] == 4 * candidates * d + 4 * 2, moved  # and the divisor and the sum of the mean
    print(f"counted: {products:.2f} products, {moved}")


def libraries(rank: int, world: int) -> None:
    from adapters_same import same

    same(rank, world)


def rivals(rank: int, world: int) -> None:
    from rivals_same import same

    same(rank, world)


PARTS = {
    part.__name__: part
    for part in (
        every_setting,
        a_quarter_of_settings,
        statistics,
        trained,
        refused,
        one_row_each,
        recomputed,
        companion,
        groups,
        counted,
        libraries,
        rivals,
    )
}
COMPILER = ("torch._dynamo", "torch._inductor.compile_fx", "torch.fx.experimental.symbolic_shapes")
ADAPTERS = tuple(f"weince.adapters.{name}" for name in ("lightly", "open_clip", "sentence_transformers"))
BEFORE = {
    "refused": ADAPTERS,
    "one_row_each": ADAPTERS[:1],
    "libraries": ("adapters_same",),
    "rivals": ("rivals_same",),
}
"""What takes seconds to import: once, before there are several processes. Any step reaches for the compiler."""


def process(rank: int, world: int, names: list[str], meeting: Path) -> None:
    """The parts, in one process of a group."""
    torch.set_num_threads(1)
    weince.tiles.sweep.TILE_ELEMENTS["cpu"], weince.tiles.sweep.TILE_ROWS = 1, 7  # many tiles, the last one cut
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    for name in names:
        PARTS[name](rank, world)
    dist.barrier()
    dist.destroy_process_group()
    print(f"process {rank} of {world}: {len(names)} done", flush=True)


def main() -> None:
    """All parts, in groups of one size after another."""
    worlds, *names = sys.argv[1:]
    for module in (*COMPILER, *(module for name in names for module in BEFORE.get(name, ()))):
        import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        for world in map(int, worlds.split(",")):
            arguments = (world, names, Path(folder, str(world)))
            torch.multiprocessing.start_processes(process, arguments, world, start_method="fork")


if __name__ == "__main__":
    main()
