"""HarmoFL: the published code's trajectories, worked numbers, and FedAvg without its parts."""

import pytest
import torch
from torch import nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.methods import ClientContext, FedAvg, HarmoFL

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=1e-4),
}

unharmonized = pytest.mark.filterwarnings("ignore:HarmoFL on a network without amplitude normalization")


class Point(nn.Module):
    """Answers its weights."""

    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(start.clone())
        self.harmonize = nn.Identity()

    def forward(self, image):
        return self.w


@pytest.fixture
def descent(vectors):
    """A quadratic in five dimensions, its start, and steps on it: the weights before the first and after each."""
    given = vectors("harmofl")

    def quadratic(w, label):
        return 0.5 * w @ given["in_A"] @ w - given["in_b"] @ w

    def steps(optimizer, count, scaler=None):
        network = Point(given["in_w0"])
        scaler = scaler or torch.amp.GradScaler(enabled=False)
        made = OPTIMIZERS[optimizer](network.parameters())
        client = ClientContext(network, made, quadratic, lambda epoch: [], 1, Broadcast(1, {}, {}), scaler=scaler)
        path = [network.w.detach().clone()]
        for _ in range(count):
            HarmoFL().step(client, {"image": torch.zeros(1), "label": torch.zeros(1)})
            path.append(network.w.detach().clone())
        return torch.stack(path)

    return steps


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_four_steps_are_those_of_the_published_code(vectors, close, descent, optimizer):
    close(descent(optimizer, 4), vectors("harmofl")[f"out_{optimizer}_traj"])


@unharmonized
def test_a_step_goes_by_the_gradient_of_perturbed_weights(one_weight, run):
    # The gradient at 0 is -8, so the weight moves to -2; there the gradient is -10. Half of that, from 0: 5.
    assert run(HarmoFL(alpha=2), [one_weight("Alder", 8.0)], 1).values() == [5]


@unharmonized
def test_one_loss_a_step_is_recorded_that_of_the_perturbed_weights(one_weight, run):
    trained = run(HarmoFL(alpha=2), [one_weight("Alder", 8.0)], 1)
    assert trained.metric("loss") == trained.metric("segmentation") == [0.5 * 10**2]


@unharmonized
def test_batch_norm_keeps_the_statistics_of_the_first_pass(hospitals, run, same):
    options = {"norm": "batch", "harmonize": None, "lr": 0.0}  # running statistics are all that changes
    plain, perturbed = (run(method, hospitals(**options), 2) for method in (FedAvg(), HarmoFL(alpha=0.5)))
    assert same(plain.weights, perturbed.weights)
    assert not same(plain.weights, plain.states[0].weights)


def test_amplitudes_are_collected_in_the_first_round_averaged_and_frozen(hospitals, run):
    sites = hospitals()
    trained = run(HarmoFL(), sites, 3)
    first, *later = (state.weights["harmonize.amplitude"] for state in trained.states)
    sent = [update.weights["harmonize.amplitude"] for update in trained.updates]
    assert float(first) == pytest.approx(sum(n * float(a) for n, a in zip((2, 4, 6), sent, strict=False)) / 12)
    assert len({float(amplitude) for amplitude in sent[:3]}) == 3
    assert all(torch.equal(amplitude, first) for amplitude in [*sent[3:], *later])


@pytest.mark.parametrize(("momentum", "share"), [(0.1, 0.9), (0.0, 1.0), (1.0, 0.0)])
def test_later_batches_take_part_by_the_momentum(hospitals, run, momentum, share):
    site = hospitals()[0]
    batches = list(site.batches(0))
    site.batches = lambda seed: batches
    means = [float(batch["image"].mean()) for batch in batches]
    trained = run(HarmoFL(momentum=momentum), [site], 1)
    expected = share * means[0] + (1 - share) * means[1]
    assert float(trained.updates[0].weights["harmonize.amplitude"]) == pytest.approx(expected, rel=1e-5)


@unharmonized
def test_without_perturbation_and_layer_it_is_fedavg_bit_for_bit(hospitals, run, same):
    plain, neither, perturbed = (
        run(method, hospitals(harmonize=None), 2) for method in (FedAvg(), HarmoFL(alpha=0), HarmoFL())
    )
    assert same(plain.weights, neither.weights)
    assert not same(plain.weights, perturbed.weights)


def test_a_network_that_leaves_images_as_they_are_warns(one_weight, run):
    with pytest.warns(UserWarning, match="network_def::harmonize"):
        run(HarmoFL(), [one_weight("Alder", 8.0)], 1)


def test_a_step_that_overflows_in_half_precision_leaves_the_weights_as_they_were(descent):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before, after = descent("sgd", 1, scaler)
    assert torch.equal(before, after)
    assert scaler.get_scale() == 2.0**126


def test_a_scaled_gradient_makes_the_same_step(descent):
    scaled = descent("sgd", 1, torch.amp.GradScaler("cpu", init_scale=1024.0))
    torch.testing.assert_close(scaled, descent("sgd", 1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"momentum": -1}, {"momentum": 1.5}], ids=str)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        HarmoFL(**wrong)
