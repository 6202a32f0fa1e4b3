"""Three machines, one killed with its children: the proof, with few documents."""

import pytest

from tests.cluster.three_workers import Servers, prove


@pytest.mark.may_take(180, "three machines are started, and one is killed")
def test_a_machine_that_is_killed_costs_nothing_but_what_it_had_in_flight(
    shared_servers: Servers,
) -> None:
    proof = prove(60, 3, "kill", delay_s=0.5, shared_servers=shared_servers)
    assert proof.wrong == []
    assert (proof.n_done, proof.status) == (60, 0)
    assert proof.n_twice == proof.n_in_flight
    assert proof.n_killed >= 3
