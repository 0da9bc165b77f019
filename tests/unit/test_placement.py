"""What parts find room on which nodes."""

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.checks.placement import Bundle, Node, bundles_of, check_placement, unplaced
from orchestrator.config.reading import read_config
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.run import ROOT, main
from services.errors import ResourceError
from services.rollout.settings import EngineSettings
from tests.documented import ONE_GPU, ONE_NODE, THREE_NODES


def online(engine: Mapping[str, Any], train: Mapping[str, Any], reward: Mapping[str, Any]) -> Any:
    return OnlineDPO.model_validate(
        {
            "policy": "some/policy",
            "base": "some/base",
            "prompts": {"path": "prompts.jsonl"},
            "reward": {"parts": [{"kind": "missing_eos"}], **reward},
            "engine": dict(engine),
            "train": {"optimizer": {"kind": "adamw", "lr": 1e-6}, **train},
        }
    )


def node(gpus: int, cpus: int, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {})}
    return {"Alive": alive, "Resources": resources}


LAYOUTS = {
    "one GPU": (
        ({"num_gpus": 0.4}, {"num_gpus": 0.5}, {"num_gpus": 0.1}),
        [node(1, 8)],
    ),
    "one node of 8": (
        ({"workers": 3, "num_gpus": 1}, {"workers": 4, "num_gpus": 1}, {"num_gpus": 1}),
        [node(8, 64)],
    ),
    "three nodes of 8": (
        (
            {"workers": 1, "num_gpus": 8, "tensor_parallel_size": 8},
            {"workers": 8, "num_gpus": 1},
            {"replicas": 8, "num_gpus": 1},
        ),
        [node(8, 64)] * 3,
    ),
    "mixed": (
        (
            {"workers": 2, "num_gpus": 4, "tensor_parallel_size": 4},
            {"workers": 2, "num_gpus": 1},
            {"replicas": 4, "num_gpus": 0.5},
        ),
        [node(0, 16), node(8, 32), node(2, 8), node(1, 8), node(1, 8)],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_fits_passes_and_one_part_more_does_not(name: str) -> None:
    (engine, train, reward), nodes = LAYOUTS[name]
    check_placement([online(engine, train, reward)], nodes)
    more = {**train, "workers": train.get("workers", 1) + 1}
    with pytest.raises(ResourceError, match="no room beside the rest"):
        check_placement([online(engine, more, reward)], nodes)


def test_an_engine_lies_on_one_node() -> None:
    job = online({"num_gpus": 8, "tensor_parallel_size": 8, "num_cpus": 4}, {}, {})
    with pytest.raises(ResourceError) as refused:
        check_placement([job], [node(4, 16), node(4, 16)])
    assert str(refused.value) == (
        "online_dpo: no room on one node for one of 1 of 'engine', which takes 8 GPUs and 4 CPUs;"
        " nodes: 2 x 4 GPUs and 16 CPUs; lower engine.num_gpus, or add nodes"
    )


def test_what_is_scarce_is_what_to_lower() -> None:
    job = online({"num_gpus": 0.4, "num_cpus": 4}, {"num_gpus": 0.5, "num_cpus": 4}, {})
    with pytest.raises(
        ResourceError, match=r"1 x 1 GPUs and 8 CPUs; lower \w+.\w+ or \w+.num_cpus,"
    ):
        check_placement([job], [node(1, 8)])
    with pytest.raises(ResourceError, match=r"1 of 'train'.*lower train\.num_gpus, or add nodes"):
        check_placement([job], [node(0, 64)])
    with pytest.raises(ResourceError, match="nodes: none; lower"):
        check_placement([job], [])


def test_cpus_are_counted_and_dead_nodes_are_not() -> None:
    job = online({"workers": 2, "num_cpus": 4}, {"num_cpus": 2}, {"num_cpus": 1})
    check_placement([job], [node(0, 11)])
    with pytest.raises(ResourceError, match=r"'engine'|'reward'.*lower reward.replicas"):
        check_placement([job], [node(0, 10), node(0, 10, alive=False)])


def test_shares_of_two_gpus_are_no_whole_one() -> None:
    def bundles(*gpus: float) -> list[Bundle]:
        return [Bundle(each, 1, "engine", "workers") for each in gpus]

    two = [Node.of({"GPU": 2, "CPU": 8})]
    assert unplaced(bundles(0.75, 0.75, 0.25, 0.25), two) == []
    assert unplaced(bundles(0.6, 0.6, 0.6), two) == bundles(0.6)
    assert unplaced(bundles(0.75, 0.75, 0.5), two) == bundles(0.5)


def test_where_the_largest_first_is_no_way_another_is_found() -> None:
    """CPUs stand against GPUs: the tightest node is the wrong one for the first."""

    def bundle(gpus: float, cpus: float) -> Bundle:
        return Bundle(gpus, cpus, "engine", "workers")

    nodes = [Node.of({"GPU": 2, "CPU": 9}), Node.of({"GPU": 3, "CPU": 2})]
    assert unplaced([bundle(2, 1), bundle(1, 8), bundle(1, 1), bundle(1, 1)], nodes) == []
    assert unplaced([bundle(2, 1), bundle(1, 8), bundle(1, 2), bundle(1, 1)], nodes)


def test_an_engine_reserves_the_gpus_that_it_spans() -> None:
    with pytest.raises(ValueError, match="set num_gpus to 4"):
        EngineSettings(num_gpus=1, tensor_parallel_size=4)


@pytest.mark.parametrize(
    ("command", "nodes", "fewer"),
    [
        (ONE_GPU, [node(1, 9)], [node(1, 8)]),
        (ONE_NODE, [node(8, 64)], [node(4, 32), node(3, 32)]),
        (THREE_NODES, [node(8, 96)] * 3, [node(8, 96), node(8, 96), node(7, 96)]),
    ],
)
def test_the_documented_layouts_fit_and_take_no_less(
    command: str, nodes: list[dict[str, Any]], fewer: list[dict[str, Any]]
) -> None:
    _, _, config, *words, last = command.split()
    stages = list(read_config(ROOT / config, words).expand().values())
    check_placement(stages, nodes)
    with pytest.raises(ResourceError):
        check_placement(stages, fewer)
    assert last == "--dry-run"
    assert main([config, *words, last]) == 0


def test_the_demo_fits_four_cores() -> None:
    stages = list(read_config(ROOT / "configs" / "demo.yaml", []).expand().values())
    check_placement(stages, [node(0, 4)])
    assert max(len(bundles_of(stage)) for stage in stages) >= 3
