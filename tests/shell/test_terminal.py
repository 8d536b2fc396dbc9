"""What commands print."""

from __future__ import annotations

from rich.console import Console

from weince.shell.provenance import provenance
from weince.shell.terminal import table
from weince.shell.words import count


def test_at_80_columns_nothing_is_cut(capsys):
    name = "a-loss-with-quite-a-long-name-t0.07-s12"
    shown = table("Runs", ("run", "epoch", "xi", "endpoint", "tail", "nearness"), names=("run", "tail"))
    shown.add_row(name, "1,000", "-0.39 \\[-0.45, -0.33]", "1.000", "exponential", "0.000123")
    Console(width=80).print(shown)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert any("-0.39 [-0.45, -0.33]" in line for line in lines)
    assert name in "".join(line.split("  ")[0].strip() for line in lines[3:])


def test_a_number_and_its_noun_agree():
    assert [count(n, "epoch") for n in (0, 1, 2, 12345)] == ["0 epochs", "1 epoch", "2 epochs", "12,345 epochs"]
    assert count(2, "query", "queries") == "2 queries"


def test_provenance_counts_threads_as_people_do():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert "1 thread)" in str(provenance(torch.device("cpu"), ("numpy",))["device"])
    finally:
        torch.set_num_threads(before)
