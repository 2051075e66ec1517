"""How many epochs a search trains until it reaches what the full grid reaches: `python -m profiling.early_stopping`.

The published 16-cell grid on a subset of FashionMNIST, in full; the same grid under asha; and Optuna with asha over a
wider space.  Epochs are counted as the ledger has them, over all trials of a search, until the full grid's best
validation accuracy is first reached.  Each is the command line as a person runs it; seeds decide the split, the
weights and the sampler.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

EPOCHS = 9
GRID = f"""
name: full-grid
dataset: {{name: fashion_mnist, split: {{train: 700, val: 1000, test: 300}}}}
space:
  model: {{grid: [resnet18, resnet50]}}
  optimizer: {{grid: [sgd, adam]}}
  lr: {{grid: [1e-3, 1e-4]}}
  batch_size: {{grid: [16, 32]}}
train: {{epochs: {EPOCHS}}}
keep_models: 0
"""
WIDER = f"""
name: wider
dataset: {{name: fashion_mnist, split: {{train: 700, val: 1000, test: 300}}}}
space:
  model: {{choice: [resnet18, resnet50, simple_cnn, baseline, stabilized]}}
  optimizer: {{choice: [sgd, adam]}}
  lr: {{loguniform: [1e-4, 1e-2]}}
  batch_size: {{choice: [16, 32, 64]}}
train: {{epochs: {EPOCHS}}}
search: {{method: optuna, trials: 24}}
scheduler: {{name: asha}}
keep_models: 0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    seeds = parser.parse_args().seeds
    shares: dict[str, list[float]] = {}
    print("| seed | search | epochs of the grid | its best val | epochs until reached | share | epochs in all |")  # noqa: T201
    print("|---|---|---|---|---|---|---|", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("grid", GRID), ("wider", WIDER)):
            (Path(folder) / f"{name}.yaml").write_text(text)
        for seed in seeds:
            full = _epochs(Path(folder), "grid", f"full-{seed}", seed)
            target = max(full)
            searches = {
                "full grid, longest first": full,
                "the grid under asha": _epochs(Path(folder), "grid", f"asha-{seed}", seed, "scheduler.name=asha"),
                "optuna (tpe) + asha, wider space": _epochs(Path(folder), "wider", f"wider-{seed}", seed),
            }
            for search, accuracies in searches.items():
                reached = next((n for n, found in enumerate(accuracies, 1) if found >= target), math.inf)
                shares.setdefault(search, []).append(reached / len(full))
                cells = (
                    seed,
                    search,
                    len(full),
                    f"{target:.1%}",
                    reached,
                    f"{reached / len(full):.0%}",
                    len(accuracies),
                )
                print(f"| {' | '.join(map(str, cells))} |", flush=True)  # noqa: T201
    for search, found in shares.items():
        print(f"median over {len(found)} seeds, {search}: {statistics.median(found):.0%}")  # noqa: T201


def _epochs(folder: Path, experiment: str, run: str, seed: int, *changes: str) -> list[float]:
    """The validation accuracy after each epoch trained, in the order in which they were; one that is no number is 0."""
    values = [f"seed={seed}", f"dataset.split_seed={seed}", *changes]
    values += [f"search.seed={seed}"] if experiment == "wider" else []
    command: Sequence[str] = [
        sys.executable, "-m", "tune_jobs", "search", str(folder / f"{experiment}.yaml"), "--name", run,
        "--storage", str(folder), *(word for value in values for word in ("--set", value)),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = (folder / run / "trials.jsonl").read_text().splitlines()
    return [event["val_accuracy"] or 0.0 for event in map(json.loads, lines) if event["event"] == "epoch"]


if __name__ == "__main__":
    main()
