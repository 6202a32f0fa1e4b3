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


def test_where_the_model_is_in_memory_is_asked_first_until_it_has_a_round_more_to_do() -> None:
    cold = ServerState(True, 0, None, is_resident=False)
    assert choose_server([cold, ServerState(True, 3, None, is_resident=True)]) == 1
    assert choose_server([cold, ServerState(True, 5, None, is_resident=True)]) == 0


def test_where_the_request_was_lost_is_asked_last() -> None:
    assert (
        choose_server([ServerState(True, 0, 4, failed_before=True), ServerState(True, 3, 4)]) == 1
    )


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
