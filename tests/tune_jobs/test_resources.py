from __future__ import annotations

from typing import Any

import pytest

from tune_jobs.errors import UsageError
from tune_jobs.experiment import check
from tune_jobs.resources import MIB, Override, Request, Resources, card_kinds, check_servable, fits, grown, slots


def node(alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


def named(resources: dict[str, float]) -> dict[str, Any]:
    return {"Alive": True, "Resources": resources}


def test_of_model_overrides_what_it_names_alone() -> None:
    resources = Resources(cpu=2, gpu=0.25, by_model={"svm": Override(gpu=0), "mlp": Override(cpu=1)})
    assert resources.of("resnet18") == Request(cpu=2, gpu=0.25)
    assert resources.of("svm") == Request(cpu=2, gpu=0)
    assert resources.of("mlp") == Request(cpu=1, gpu=0.25)


@pytest.mark.parametrize(
    ("request_", "shares"),
    [
        (Request(cpu=1), False),
        (Request(cpu=0.5), True),
        (Request(gpu=1), False),
        (Request(gpu=2, cpu=0.5), False),
        (Request(gpu=0.5), True),
        (Request(gpu="auto"), True),
    ],
    ids=str,
)
def test_request_shares_a_card_or_without_one_a_core(request_: Request, shares: bool) -> None:
    assert request_.shares == shares


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


def test_slots_are_one_where_no_node_is_large_enough_yet() -> None:
    """One is handed out all the same: a cluster grows for what waits at Ray's."""
    assert slots(Request(cpu=64), [node(CPU=4)]) == slots(Request(), []) == 1


def test_check_servable_takes_what_one_node_can_give() -> None:
    check_servable([Request(cpu=4), Request(cpu=1, gpu=0.5)], [node(CPU=4), node(CPU=1, GPU=1)])


@pytest.mark.parametrize(
    ("request_", "fit"),
    [
        (Request(cpu=5), "cpu 4"),
        (Request(cpu=2, gpu=1), "cpu 1, gpu 1"),
        (Request(gpu=2), "cpu 1, gpu 1"),
        (Request(cpu=8), "cpu 4"),
    ],
    ids=str,
)
def test_check_servable_refuses_what_no_single_node_can_give(request_: Request, fit: str) -> None:
    nodes = [node(CPU=4), node(CPU=1, GPU=1), node(alive=False, CPU=64, GPU=8)]
    with pytest.raises(UsageError) as error:
        check_servable([Request(), request_], nodes)
    assert str(error.value) == (
        f"resources: a trial asks for {request_}, which no node can serve (nodes have: cpu 4, gpu 0; cpu 1, gpu 1); "
        f"{fit} would fit"
    )


def test_check_servable_cuts_no_request_down_to_a_node_without_cores() -> None:
    """A head node that is to run no trials has none."""
    with pytest.raises(UsageError, match=r"; cpu 4 would fit$"):
        check_servable([Request(cpu=8, gpu=1)], [node(CPU=0, GPU=4), node(CPU=4)])
    with pytest.raises(UsageError, match=r"\(nodes have: cpu 0, gpu 4\)$"):
        check_servable([Request(cpu=8, gpu=1)], [node(CPU=0, GPU=4)])


def test_check_servable_keeps_what_a_node_has_of_custom_resources() -> None:
    with pytest.raises(UsageError, match=r"; cpu 4, disk 1 would fit$"):
        check_servable([Request(cpu=8, custom={"disk": 1})], [node(CPU=4, disk=2)])


def test_check_servable_no_node_alive() -> None:
    with pytest.raises(UsageError, match=r"nodes have: none is alive\)$"):
        check_servable([Request()], [node(alive=False, CPU=64)])


def test_check_servable_memory_and_custom_resources() -> None:
    nodes = [node(CPU=4, memory=1024 * MIB, disk=1)]
    check_servable([Request(memory_mib=1024, custom={"disk": 0.5})], nodes)
    with pytest.raises(
        UsageError, match=r"memory 2048 MiB, which .* memory 1024 MiB, disk 1\); cpu 1, memory 1024 MiB"
    ):
        check_servable([Request(memory_mib=2048)], nodes)
    with pytest.raises(UsageError, match=r"memory 1.5 MiB, which .*; cpu 4, memory 1 MiB would fit"):  # GiB were meant
        check_servable([Request(cpu=64, memory_mib=1.5)], nodes)
    with pytest.raises(UsageError, match=r"asks for cpu 1, tape 1, which no node can serve .*; cpu 1 would fit"):
        check_servable([Request(custom={"tape": 1})], nodes)


def test_check_servable_names_the_kind_of_card_and_every_digit() -> None:
    nodes = [named({"CPU": 4, "GPU": 1, "accelerator_type:H100": 1, "node:10.0.0.1": 1})]
    with pytest.raises(UsageError) as error:
        check_servable([Request(gpu=2, memory_mib=12345678)], nodes)
    assert str(error.value) == (
        "resources: a trial asks for cpu 1, gpu 2, memory 12345678 MiB, which no node can serve "
        "(nodes have: cpu 4, gpu 1 (H100)); cpu 1, gpu 1 would fit"
    )


def test_card_kinds_are_those_of_living_nodes_with_gpus() -> None:
    nodes = [
        named({"CPU": 4, "GPU": 1, "accelerator_type:T4": 1}),
        named({"CPU": 4, "GPU": 2, "accelerator_type:H100": 1}),
        named({"CPU": 4, "accelerator_type:TPU-V4": 1}),
        named({"CPU": 4, "GPU": 2, "accelerator_type:A100": 1}) | {"Alive": False},
    ]
    assert card_kinds(nodes) == ["H100", "T4"]
    assert card_kinds([*nodes, node(GPU=1)]) == ["", "H100", "T4"]
    assert card_kinds([node(CPU=4)]) == [""]


def test_fits_a_fraction_is_of_one_card() -> None:
    assert fits(Request(cpu=0.1, gpu=0.6), {"CPU": 8, "GPU": 2}) == 2
    assert fits(Request(cpu=0.1, gpu=0.3), {"CPU": 8, "GPU": 2}) == 6
    assert fits(Request(cpu=0.1, gpu=2), {"CPU": 8, "GPU": 5}) == 2
    assert fits(Request(cpu=0.1, gpu=0.1), {"CPU": 8, "GPU": 1}) == 10
    assert fits(Request(cpu=0.1, gpu=0.01), {"CPU": 8, "GPU": 0.29}) == 29  # 28.999999999999996 in floating point


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Request(gpu=0.25), Request(gpu=0.5)),
        (Request(gpu=0.75), Request(gpu=1)),
        (Request(gpu=1), None),
        (Request(memory_mib=100), Request(memory_mib=200)),
        (Request(memory_mib=600), None),
        (Request(cpu=1), Request(cpu=1, memory_mib=512)),
    ],
    ids=str,
)
def test_grown_asks_for_more_memory_while_a_node_has_it(before: Request, after: Request | None) -> None:
    assert grown(before, [node(CPU=4, GPU=1, memory=1024 * MIB)], main_memory=False) == after


@pytest.mark.parametrize(
    ("section", "line"),
    [
        (
            {"gpu": 1.5},
            "resources.gpu: 1.5: auto, a fraction of one GPU from 0.0001 to 1 in steps of 0.0001, or a whole number of",
        ),
        ({"gpu": -1}, "resources.gpu: -1"),
        ({"gpu": 0.00001}, "resources.gpu: 1e-05"),
        ({"gpu": "much"}, "resources.gpu: 'much'"),
        ({"cpu": 0}, "resources.cpu: 0"),
        ({"cpu": -1}, "resources.cpu: -1"),
        ({"cpu": 0.00005}, "resources.cpu: 5e-05"),
        ({"gpu": 0.33333}, "resources.gpu: 0.33333"),
        ({"memory_mib": -5}, "resources.memory_mib: -5"),
        ({"by_model": {"mlp": {"gpu": 1.5}}}, "resources.by_model.mlp.gpu: 1.5"),
        ({"memory_mib": 0}, "resources.memory_mib: 0"),
        (
            {"custom": {"GPU": 1}},
            "resources.custom: 'GPU' is no custom resource; give cpu, gpu or memory_mib",
        ),
        ({"custom": {"tape": -1}}, "resources.custom.tape: -1"),
        ({"by_model": {"svn": {"cpu": 1}}}, "resources.by_model: "),
    ],
)
def test_wrong_request_is_refused_by_name(section: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        check({"name": "x", "dataset": {"name": "digits"}, "resources": section})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_grown_main_memory_of_a_trial_on_a_gpu() -> None:
    nodes = [node(CPU=4, GPU=1, memory=1024 * MIB)]
    assert grown(Request(gpu=1), nodes, main_memory=True) == Request(gpu=1, memory_mib=512)


def test_grown_main_memory_is_twice_the_share_on_the_smallest_node_that_fits() -> None:
    large, small = node(CPU=4, memory=4096 * MIB), node(CPU=4, memory=1024 * MIB)
    assert grown(Request(), [large, small], main_memory=False) == Request(memory_mib=512)
    assert grown(Request(cpu=2), [large, node(CPU=1, memory=64 * MIB)], main_memory=False) == Request(
        cpu=2, memory_mib=4096
    )
