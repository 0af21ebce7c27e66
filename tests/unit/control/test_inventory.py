import pytest

from scheduler.control.inventory import read_nodes, simulated_cards
from scheduler.model.errors import InvalidInput
from scheduler.model.node import Node

MACHINE = Node(name="here", cpu_milli=2_000, memory_mib=4_096, labels=(("arch", "x86_64"),))


def read(tmp_path, text):
    file = tmp_path / "nodes.yaml"
    file.write_text(text)
    return read_nodes(str(file), MACHINE)


def test_a_short_name_means_the_board_with_nvlink():
    cards = simulated_cards("2xH100", "n", "--cards")
    assert [(c.id, c.model, c.index) for c in cards] == [
        ("SIM-n-0", "H100-SXM-80GB", 0),
        ("SIM-n-1", "H100-SXM-80GB", 1),
    ]
    assert all(c.simulated and c.memory_mib > 80_000 and c.island for c in cards)


def test_boards_may_be_mixed():
    assert [c.model for c in simulated_cards("1xL40S, 1xRTX4090", "n", "")] == ["L40S", "RTX-4090"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("H100", "'H100' is not COUNTxMODEL, such as 8xH100"),
        ("8xH1000", "unknown card model 'H1000'"),
        ("0xH100", "must declare 1 to 64 cards, not 0"),
    ],
)
def test_wrong_cards_say_what_is_right(text, said):
    with pytest.raises(InvalidInput) as refused:
        simulated_cards(text, "n", "--cards")
    assert said in str(refused.value)


def test_a_node_takes_from_the_machine_what_the_file_leaves_out(tmp_path):
    nodes = read(tmp_path, "nodes:\n- {name: a}\n- {name: b, cpus: 16, memory: 64GiB, cards: 1xL40S, rack: r1}\n")
    assert [(n.name, n.cpu_milli, n.memory_mib, len(n.devices), n.rack) for n in nodes] == [
        ("a", 2_000, 4_096, 0, ""),
        ("b", 16_000, 65_536, 1, "r1"),
    ]
    assert nodes[0].labels == MACHINE.labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: []", "--nodes: "),
        ("nodez: [{name: a}]", "must hold one list 'nodes'"),
        ("nodes: {", "is not YAML"),
        ("nodes: [7]", "nodes[0]: must be a mapping"),
        ("nodes: [{cpus: 2}]", "nodes[0].name: is needed"),
        ("nodes: [{name: a, cpu: 2}]", "nodes[0].cpu: unknown field 'cpu'; did you mean 'cpus'?"),
        ("nodes: [{name: a, memory: lots}]", "nodes[0].memory: "),
        ("nodes: [{name: a}, {name: a}]", "nodes[1].name: 'a' is there twice"),
        ("nodes: [{name: a, cards: 9xFoo}]", "nodes[0].cards: unknown card model 'Foo'"),
    ],
)
def test_mistakes_point_at_their_field(tmp_path, text, said):
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path, text)
    assert said in str(refused.value)
