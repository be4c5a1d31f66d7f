"""States on a site's disk: a question that comes again begins where it began the first time."""

import torch

from fedbcs_monai.federated.client_store import ClientStore, ExchangeId


def written(folder, *moments, rounds=1, selected=0):
    states = ClientStore(folder, rounds)
    for exchange_id in moments:
        states.write(ExchangeId(*exchange_id), {"memory/at": torch.tensor(exchange_id)}, selected)
    return states


def found(states, *exchange_id):
    at = states.before(ExchangeId(*exchange_id))
    return None if at is None else states.read(at)["memory/at"].tolist()


def files(folder):
    return sorted(path.stem for path in folder.iterdir())


def test_a_question_begins_with_the_state_before_it(tmp_path):
    states = written(tmp_path, (1, 0), (2, 0))
    assert found(states, 2, 0) == [1, 0]
    assert found(states, 3, 0) == [2, 0]
    assert states.before(ExchangeId(1, 0)) is None
    assert states.read(None) == {}


def test_a_round_may_have_several_exchanges(tmp_path):
    states = written(tmp_path, (1, 0), (1, 1), (2, 0), (2, 1))
    assert [found(states, 2, 0), found(states, 2, 1), found(states, 3, 0)] == [[1, 1], [2, 0], [2, 1]]


def test_what_nobody_will_ask_for_is_forgotten(tmp_path):
    written(tmp_path, *((n, 0) for n in range(1, 7)), rounds=2)
    assert files(tmp_path) == ["0004_0", "0005_0", "0006_0"]


def test_the_selected_round_is_kept(tmp_path):
    written(tmp_path, *((n, 0) for n in range(1, 7)), selected=2)
    assert files(tmp_path) == ["0002_0", "0005_0", "0006_0"]


def test_a_site_that_was_away_keeps_its_newest(tmp_path):
    states = written(tmp_path, (1, 0), (8, 0))
    assert files(tmp_path) == ["0001_0", "0008_0"]
    assert found(states, 8, 0) == [1, 0]


def test_later_states_of_a_run_that_went_back_are_forgotten(tmp_path):
    states = written(tmp_path, (1, 0), (2, 0), (3, 0), (2, 0), rounds=2)
    assert files(tmp_path) == ["0001_0", "0002_0"]
    assert found(states, 9, 0) == [2, 0]
