"""Which server takes the next request."""

from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.backends.balancer import ServerState, choose_server

SERVERS = st.lists(
    st.builds(
        ServerState,
        is_up=st.booleans(),
        n_running=st.integers(0, 9),
        n_slots=st.none() | st.integers(1, 8),
        is_resident=st.none() | st.booleans(),
        failed_before=st.booleans(),
    ),
    max_size=6,
)


def test_the_one_with_the_fewest_rounds_before_it_is_asked() -> None:
    assert (
        choose_server([ServerState(True, 4, 8), ServerState(True, 1, 4), ServerState(True, 3, 4)])
        == 1
    )


def test_where_the_model_is_in_memory_is_asked_first_until_it_has_a_round_more_to_do() -> None:
    cold = ServerState(True, 0, None, is_resident=False)
    assert choose_server([cold, ServerState(True, 3, None, is_resident=True)]) == 1
    assert choose_server([cold, ServerState(True, 5, None, is_resident=True)]) == 0


def test_where_the_request_was_lost_is_asked_last() -> None:
    assert (
        choose_server([ServerState(True, 0, 4, failed_before=True), ServerState(True, 3, 4)]) == 1
    )


def test_when_all_are_full_or_away_no_one_is_asked() -> None:
    assert choose_server([ServerState(True, 4, 4), ServerState(False, 0, 4)]) is None
    assert choose_server([]) is None


@given(SERVERS)
def test_no_one_is_asked_who_is_away_or_full_and_someone_is_where_one_has_room(
    servers: list[ServerState],
) -> None:
    able = [
        at
        for at, server in enumerate(servers)
        if server.is_up and (server.n_slots is None or server.n_running < server.n_slots)
    ]
    chosen = choose_server(servers)
    assert (chosen in able) if able else chosen is None


@given(SERVERS, st.integers(1, 50))
def test_requests_that_no_one_ends_fill_every_place_and_no_more(
    servers: list[ServerState], n_requests: int
) -> None:
    running = [server.n_running for server in servers]
    for _ in range(n_requests):
        seen = [
            ServerState(server.is_up, running[at], server.n_slots or 4, server.is_resident)
            for at, server in enumerate(servers)
        ]
        at = choose_server(seen)
        if at is None:
            assert all(
                not server.is_up or server.n_running >= (server.n_slots or 0) for server in seen
            )
            return
        running[at] += 1
        assert running[at] <= (servers[at].n_slots or 4)
