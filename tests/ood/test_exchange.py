"""OOD exchange: the two questions to the sites, the accepted answers, and the stored statistics."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.methods import FedAvg
from fedbcs_monai.ood.distance import DISTANCES, STYLES, style_answer, within
from fedbcs_monai.ood.exchange import learn_site_styles
from fedbcs_monai.ood.file import OF, read_site_styles, site_styles_file, write_site_styles
from fedbcs_monai.tensors import read_tensors, write_tensors

CASES = {site: torch.randn(6, 4, generator=torch.Generator().manual_seed(n)) for n, site in enumerate("AB")}
STATE = State(3, {"w": torch.zeros(1)}, {"payload": torch.zeros(1)})


def asking(cases, change=lambda update: update, asked=None):
    """Sites with these cases; what each answers is changed."""

    def ask(broadcast):
        if asked is not None:
            asked.append(broadcast)
        for site, styles in cases.items():
            yield change(Update(site, 0, {}, *style_answer(broadcast.task, styles, broadcast.shared)))

    return ask


def learnt(cases, change=lambda update: update, **options):
    refused = []
    server = Aggregator(FedAvg(), STATE, refused=lambda b, site, reason: refused.append((site, reason)), **options)
    return learn_site_styles(server, asking(cases, change)), refused


def test_the_second_question_comes_with_what_the_first_has_pooled():
    asked = []
    learn_site_styles(Aggregator(FedAvg(), STATE), asking(CASES, asked=asked))
    assert [(b.task, b.round, dict(b.weights)) for b in asked] == [(t, 3, STATE.weights) for t in (STYLES, DISTANCES)]
    wanted = within({site: style_answer(STYLES, styles, {}) for site, styles in CASES.items()})
    assert asked[0].shared == {}
    assert asked[1].shared.keys() == wanted.keys()
    assert all(torch.equal(asked[1].shared[name], wanted[name]) for name in wanted)


def test_where_sites_keep_parts_of_the_network_nothing_is_pooled():
    known, _ = learnt(CASES, private={"w"})
    assert {site: torch.equal(of_site.covariance, CASES[site].T.cov()) for site, of_site in known.items()} == {
        "A": True,
        "B": True,
    }


def test_what_is_no_vector_and_no_matrix_is_refused():
    def longer(update):
        vectors = {name: tensor.expand(2, *tensor.shape).clone() for name, tensor in update.shared.items()}
        return replace(update, shared=vectors) if update.site == "B" else update

    known, refused = learnt(CASES, longer)
    assert list(known) == ["A"]
    assert refused[0][0] == "B"
    assert "not (n,) float32" in refused[0][1]


def test_sites_with_too_few_cases_are_not_known_and_without_any_the_second_question_is_not_asked():
    few = {"A": CASES["A"], "B": CASES["B"][:2]}
    assert list(learnt(few)[0]) == ["A"]
    asked = []
    assert learn_site_styles(Aggregator(FedAvg(), STATE), asking({"B": few["B"]}, asked=asked)) == {}
    assert len(asked) == 1


def test_what_is_read_is_what_was_written(tmp_path):
    weights = tmp_path / "model.safetensors"
    write_tensors(weights, STATE.weights)
    known, _ = learnt(CASES)
    write_site_styles(weights, known)
    found = read_site_styles(weights)
    assert list(found) == list(known)
    for site, of_site in known.items():
        assert torch.equal(found[site].mean, of_site.mean)
        assert torch.equal(found[site].covariance, of_site.covariance)
        assert found[site][2:] == of_site[2:]
    write_site_styles(weights, {})
    assert not site_styles_file(weights).exists()


def test_the_file_of_an_older_version_names_its_weights_in_its_metadata(tmp_path):
    weights = tmp_path / "model.safetensors"
    write_tensors(weights, STATE.weights)
    write_site_styles(weights, learnt(CASES)[0])
    stored = read_tensors(file := site_styles_file(weights))
    digest = bytes(stored.pop(OF).tolist()).hex()
    for said, count in ((digest, len(learnt(CASES)[0])), ("0" * 64, 0)):
        save_file(stored, file, {"weights_sha256": said})
        with pytest.warns(UserWarning, match="holds no SHA-256 of itself"):
            assert len(read_site_styles(weights)) == count


def test_a_file_that_lacks_something_is_named(tmp_path):
    weights = tmp_path / "model.safetensors"
    write_tensors(weights, STATE.weights)
    write_site_styles(weights, learnt(CASES)[0])
    stored = read_tensors(site_styles_file(weights))
    write_tensors(site_styles_file(weights), {OF: stored[OF], "A/mean": torch.zeros(4)})
    with pytest.raises(UserError, match="fedbcs ood"):
        read_site_styles(weights)


def test_a_file_under_its_earlier_name_is_read_and_goes_with_the_others(tmp_path):
    weights = tmp_path / "model.safetensors"
    write_tensors(weights, STATE.weights)
    write_site_styles(weights, learnt(CASES)[0])
    earlier = site_styles_file(weights).rename(tmp_path / "model.familiarity.safetensors")
    assert list(read_site_styles(weights)) == list(learnt(CASES)[0])
    write_site_styles(weights, learnt(CASES)[0])
    write_site_styles(weights, {})
    assert not earlier.exists()
    assert not site_styles_file(weights).exists()
