"""Two checkouts of weince beside each other: time of forward + backward, operators, live matrices, small gradients.

    git worktree add /tmp/before 1f3b54a && python bench/between.py /tmp/before .

Both run as processes of their own, asked in turn, so that what else the machine does falls on both. D = 128, float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

ASKED = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from weince import INFONCE, InfoNCELoss, QueueLoss, TwoTowerLoss, WEINCELoss

torch.set_num_threads(2)
LOSSES = {"WEINCE": WEINCELoss, "InfoNCE": InfoNCELoss, "two towers": TwoTowerLoss}
FREE = ("view", "detach", "empty", "t.default", "expand", "squeeze", "select", "slice", "alias", "as_strided",
        "transpose", "permute", "lift")

class Count(TorchDispatchMode):
    operators = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators += not any(name in func.__name__ for name in FREE)
        return func(*args, **(kwargs or {}))

def leaves(count, width=128):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count // 2, width, generator=generator).requires_grad_() for _ in range(2)]

def once(criterion, z):
    started = time.perf_counter()
    criterion(*z).backward()
    return time.perf_counter() - started

def answer(loss, path, size, repeats):
    criterion, z = LOSSES[loss](0.1, implementation=path), leaves(size)
    return sorted(once(criterion, z) for _ in range(repeats))[repeats // 2]

def counted(loss, path):
    criterion = LOSSES[loss](0.1, implementation=path)
    with Count() as mode:
        criterion(*leaves(512)).backward()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        criterion(*leaves(2048, 16)).backward()
    now = peak = 0
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return mode.operators, round(peak / (2048 * 2048 * 4), 1)

def small_gradient():
    z = torch.randn(24, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        a, b = z.to(dtype).clone().requires_grad_(), (z + 1e-3).to(dtype)
        loss = TwoTowerLoss(0.03, INFONCE, implementation="dense")(a, b)
        loss.backward()
        found.append(a.grad.double())
    return loss.item(), float((found[0] - found[1]).abs().max() / found[1].abs().max())

def queue_slopes():
    torch.manual_seed(0)
    criterion, slopes = QueueLoss(4096, 32), []
    criterion.inner.register_forward_hook(lambda module, given, output: slopes.append(output.tail.slope.mean().item()))
    base = 2 * torch.randn(1, 32)
    for _ in range(18):
        query = base + torch.randn(256, 32)
        criterion(query, query + 0.3 * torch.randn(256, 32))
    return [round(slope, 1) for slope in slopes]

print(json.dumps(None), flush=True)
for line in sys.stdin:
    name, *given = json.loads(line)
    print(json.dumps(globals()[name](*given)), flush=True)
"""


def main() -> None:
    """Print a table for LOG.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=(512, 2048, 4096))
    options = parser.parse_args()
    command = [sys.executable, "-c", ASKED]
    pipe = subprocess.PIPE
    trees = [
        subprocess.Popen([*command, str(tree / "src")], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        for tree in (options.before, options.after)
    ]

    def ask(tree: subprocess.Popen, *question: object) -> object:
        tree.stdin.write(json.dumps(question) + "\n")
        tree.stdin.flush()
        return json.loads(tree.stdout.readline())

    for tree in trees:
        tree.stdout.readline()
    for path in ("tiled", "dense"):
        for loss in ("WEINCE", "InfoNCE", "two towers"):
            for size in options.sizes:
                rounds, repeats = (9, 15) if size <= 512 else (5, 3)
                for tree in trees:
                    ask(tree, "answer", loss, path, size, 2)
                taken = [[ask(tree, "answer", loss, path, size, repeats) for tree in trees] for _ in range(rounds)]
                before, after = (1e3 * median(column) for column in zip(*taken, strict=True))
                print(f"{path} {loss} {size}: {before:.2f} -> {after:.2f} ms ({after / before:.2f})", flush=True)
    for loss in ("WEINCE", "InfoNCE"):
        print(f"dense {loss}: operators, live matrices", *(ask(tree, "counted", loss, "dense") for tree in trees))
    print("small loss and error of its gradient", *(ask(tree, "small_gradient") for tree in trees))
    print("slopes of a queue that fills", *(ask(tree, "queue_slopes") for tree in trees))


if __name__ == "__main__":
    main()
