from __future__ import annotations

from typing import Any

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.resources import Override, Request, Resources, check_servable, slots


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def test_of_model_overrides_what_it_names_alone() -> None:
    resources = Resources(cpu=2, gpu=0.25, by_model={"svm": Override(gpu=0), "mlp": Override(cpu=1)})
    assert resources.of("resnet18") == Request(cpu=2, gpu=0.25)
    assert resources.of("svm") == Request(cpu=2, gpu=0)
    assert resources.of("mlp") == Request(cpu=1, gpu=0.25)


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1, 1), (2, 2), (3.5, 3)])
def test_request_threads_are_its_whole_cpus(cpu: float, threads: int) -> None:
    assert Request(cpu=cpu).threads == threads


@pytest.mark.parametrize(
    ("request_", "expected"),
    [(Request(cpu=1), 5), (Request(cpu=2), 2), (Request(cpu=1, gpu=0.25), 1), (Request(cpu=0.25, gpu=0.25), 4)],
    ids=str,
)
def test_slots_are_what_fits_on_each_node(request_: Request, expected: int) -> None:
    assert slots(request_, [node(CPU=4), node(CPU=1, GPU=1), node(alive=False, CPU=64)]) == expected


def test_check_servable_takes_what_one_node_can_give() -> None:
    check_servable([Request(cpu=4), Request(cpu=1, gpu=0.5)], [node(CPU=4), node(CPU=1, GPU=1)])


@pytest.mark.parametrize("request_", [Request(cpu=5), Request(cpu=2, gpu=1), Request(gpu=2), Request(cpu=8)], ids=str)
def test_check_servable_refuses_what_no_single_node_can_give(request_: Request) -> None:
    nodes = [node(CPU=4), node(CPU=1, GPU=1), node(alive=False, CPU=64, GPU=8)]
    with pytest.raises(UsageError) as error:
        check_servable([Request(), request_], nodes)
    assert str(error.value) == (
        f"resources: a trial asks for {request_}, which no node can serve (nodes have: cpu 4, gpu 0; cpu 1, gpu 1)"
    )
