"""FedBCSM: FedBCS without momentum, FedAvgM without prototypes."""

from fedbcs_monai.methods import FedAvgM, FedBCS, FedBCSM


def test_beta_0_is_fedbcs_bit_for_bit(hospitals, run, same):
    plain, without = run(FedBCS(), hospitals(), 2), run(FedBCSM(beta=0), hospitals(), 2)
    assert same(plain.weights, without.weights)
    assert same(plain.states[-1].shared, without.states[-1].shared)


def test_weight_0_is_fedavgm_bit_for_bit(hospitals, run, same):
    assert same(run(FedAvgM(), hospitals(), 2).weights, run(FedBCSM(weight=0), hospitals(), 2).weights)


def test_both_at_once_are_neither(hospitals, run, same):
    both = run(FedBCSM(), hospitals(), 2)
    assert not same(both.weights, run(FedAvgM(), hospitals(), 2).weights)
    assert not same(both.weights, run(FedBCS(), hospitals(), 2).weights)
    assert all(update.shared.keys() == {"encoder/0", "encoder/1", "decoder/0", "decoder/1"} for update in both.updates)
