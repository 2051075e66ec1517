"""What measured rows say of where to train: from which batch size a GPU pays, how much of a card training takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from profiling.rows import Row

LEAST_LEAD = 0.05
"""One device is faster than another by more than this share, and by more than the spreads of both rows together: a row
that was timed once tells no spread."""
MOST_TRIALS = 99
"""On a card.  With shares finer than Ray's steps of 0.0001 tell apart it would place one too many."""


@dataclass(frozen=True)
class BreakEven:
    """One model on one kind of accelerator against the CPU of the same machine.  All of it holds for the batch sizes
    that were measured, and for nothing between or beyond them."""

    machine: str
    compute: str
    model: str
    optimizer: str | None
    image_size: int
    asked_precision: str
    batch_sizes: tuple[int, ...]
    """Measured on both, ascending; empty where there is no pair."""
    faster: tuple[int, ...]
    """Those at which the GPU trains more images a second, beyond what the rows vary by."""
    slower: tuple[int, ...]
    """Those at which the CPU does, likewise."""
    gpu_pays_from: int | None
    """The smallest of them from which on the GPU is faster at every one; None where it is not at the largest."""
    most_memory_mib: float
    """On the card, over all batch sizes measured on it: context and reserve included, and training steps alone.  A
    trial needs more, as it evaluates, makes checkpoints and may have its images there."""
    card_memory_mib: float
    """All that the card has."""

    @property
    def better_on_cpu(self) -> bool:
        """Whether the GPU is slower at every batch size measured."""
        return bool(self.batch_sizes) and self.slower == self.batch_sizes

    @property
    def trials_a_card(self) -> int | None:
        """How many such trials fit into the card's memory at once at the very most, up to `MOST_TRIALS`; None where it
        is not known or not one does.

        The memory of training steps alone: whether they also run well side by side is not in these rows.
        """
        if not self.most_memory_mib > 0 or not self.card_memory_mib >= self.most_memory_mib:
            return None
        return min(int(self.card_memory_mib // self.most_memory_mib), MOST_TRIALS)

    @property
    def gpu_fraction(self) -> float | None:
        """The least share of a card to ask Ray for, in its steps of 0.0001: with less more would be placed than fit."""
        trials = self.trials_a_card
        return None if trials is None else 10_000 // trials / 10_000


def find(rows: Iterable[Row]) -> list[BreakEven]:
    """One for each accelerator, model, optimizer, size and precision that has a complete row, in their order.

    Empty where no accelerator was measured.
    """
    complete = [row for row in rows if row.complete and row.batch_size is not None]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in complete:
        if row.kind != "cpu":
            groups.setdefault((row.machine, row.compute, _question(row)), []).append(row)
    cpu = {(row.machine, row.work): row for row in complete if row.kind == "cpu"}
    return [_of(group, cpu) for group in groups.values()]


def _question(row: Row) -> tuple[object, ...]:
    return row.model, row.optimizer, row.image_size, row.asked_precision, row.dataset


def _of(group: Sequence[Row], cpu: dict[tuple[str, tuple[object, ...]], Row]) -> BreakEven:
    first = group[0]
    pairs = {row.batch_size: (row, cpu[key]) for row in group if (key := (row.machine, row.work)) in cpu}
    sizes = sorted(size for size in pairs if size is not None)
    faster = [size for size in sizes if _is_faster(*pairs[size])]
    pays_from = None
    for size in reversed(sizes):
        if size not in faster:
            break
        pays_from = size
    known = [row.card_memory_mib for row in group if not math.isnan(row.card_memory_mib)]
    return BreakEven(
        machine=first.machine,
        compute=first.compute,
        model=first.model,
        optimizer=first.optimizer,
        image_size=first.image_size,
        asked_precision=first.asked_precision,
        batch_sizes=tuple(sizes),
        gpu_pays_from=pays_from,
        most_memory_mib=max(known, default=math.nan),
        card_memory_mib=first.device_memory_mib,
        faster=tuple(faster),
        slower=tuple(size for size in sizes if _is_faster(*reversed(pairs[size]))),
    )


def _is_faster(one: Row, other: Row) -> bool:
    spreads = sum(row.spread for row in (one, other) if not math.isnan(row.spread))
    return one.images_per_s > other.images_per_s * (1 + max(LEAST_LEAD, spreads))


def lines(rows: Sequence[Row]) -> list[str]:
    """What the rows say, in words."""
    found = find(rows)
    if not found:
        return ["break-even: no GPU was measured, so there is none to tell"]
    told = [f"break-even, {_name(one)}: {_verdict(one)}; {_fraction(one)}" for one in found]
    return [
        *told,
        f"break-even, what counts: a lead of more than {LEAST_LEAD:.0%} and than the spreads of both rows together; "
        "memory is that of training steps, a trial needs more, and gpu: auto measures how much",
    ]


def _name(one: BreakEven) -> str:
    optimizer = "" if one.optimizer is None else f" {one.optimizer}"
    return f"{one.model}{optimizer} at {one.image_size} in {one.asked_precision} on {one.machine} {one.compute}"


def _verdict(one: BreakEven) -> str:
    measured = ", ".join(map(str, one.batch_sizes))
    if not one.batch_sizes:
        return "no CPU row to compare with"
    if one.better_on_cpu:
        return f"better off on the CPU at every batch size measured ({measured})"
    if not one.faster:
        return f"the GPU has no lead that counts at any batch size measured ({measured})"
    if one.gpu_pays_from is None:
        return f"the GPU pays at {', '.join(map(str, one.faster))} and not at the largest of {measured}"
    if one.gpu_pays_from == one.batch_sizes[0]:
        return f"the GPU pays at every batch size measured ({measured})"
    return f"the GPU pays from batch size {one.gpu_pays_from} (measured: {measured})"


def _fraction(one: BreakEven) -> str:
    if one.gpu_fraction is None:
        return "how much of the card training takes is not known"
    takes = f"training alone takes {one.most_memory_mib:,.0f} of the card's {one.card_memory_mib:,.0f} MiB"
    return f"{takes}: gpu {one.gpu_fraction:g} at the least ({one.trials_a_card} at once at the most)"
