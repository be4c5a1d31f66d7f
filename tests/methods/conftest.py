"""Networks whose features and steps can be worked by hand, a round at a site, and whole federations."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from torch import nn

from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.messages import Broadcast, State, Update
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.federated.site import Site
from fedbcs_monai.methods import ClientContext
from fedbcs_monai.networks import Features, Segmenter, build_segmenter
from fedbcs_monai.tensors import detached


class Mirror(nn.Module):
    """Every feature map is the image times one weight, and so is what a last layer, the identity, makes of it."""

    def __init__(self, classes=2, channels=2, dims=2):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.last = nn.Conv2d(channels, classes, 1) if dims == 2 else nn.Conv3d(channels, classes, 1)
        with torch.no_grad():
            self.last.weight.copy_(torch.eye(classes, channels).reshape(self.last.weight.shape))
            self.last.bias.zero_()

    def forward(self, image):
        return self.last(self.scale * image)

    def features(self, image):
        level = self.scale * image
        return Features(self.last(level), (level,), (level,), level)


@pytest.fixture(scope="session")
def mirror():
    return Mirror


@pytest.fixture(scope="session")
def pixels():
    """A batch of one row of pixels: ``pixels([[1, 0], [0, 1]], [0, 1])`` has two of two channels."""

    def batch(vectors, classes, dims=2):
        vectors, classes = torch.as_tensor(vectors, dtype=torch.float32), torch.as_tensor(classes)
        line = (1,) * (dims - 1) + (len(classes),)
        return {"image": vectors.T.reshape(1, -1, *line), "label": classes.reshape(1, 1, *line)}

    return batch


@pytest.fixture(scope="session")
def begun():
    """A round at a site, after `on_round_start`. Its criterion is 0, so that the loss is what the method adds."""

    def begin(method, network, shared=None, batches=(), round=2, epochs=1, site="Alder", criterion=None, lr=0.0):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        criterion = criterion or (lambda logits, label: 0 * logits.sum())
        broadcast = Broadcast(round, {}, shared or {})
        client = ClientContext(network, optimizer, criterion, lambda epoch: batches, epochs, broadcast, site=site)
        method.on_round_start(client)
        return client

    return begin


@pytest.fixture(scope="session")
def vectors():
    """Reference numbers: ``vectors("fpl")["out_local0"]`` is a tensor."""

    def load(name):
        with np.load(Path(__file__).parents[1] / "vectors" / f"{name}.npz") as file:
            return {key: torch.from_numpy(file[key]) for key in file.files}

    return load


@pytest.fixture(scope="session")
def close():
    """Check the tolerance of the reference numbers: 1e-4 of the largest."""

    def check(mine, theirs):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9

    return check


@pytest.fixture(scope="session")
def same_rows():
    """Check that two matrices have the same rows in any order."""

    def check(mine, theirs):
        nearest = torch.cdist(theirs, mine).argmin(1)
        assert sorted(nearest.tolist()) == list(range(len(theirs))) == list(range(len(mine)))
        assert (mine[nearest] - theirs).abs().max() <= 1e-4 * theirs.abs().max()

    return check


# Federations of one weight, and of a small U-Net.


class OneWeight(nn.Module):
    """Answers w x; its only feature map is (x, w x)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.level = nn.Identity()

    def forward(self, image):
        return self.level(torch.cat([image, self.w * image], 1))[:, 1:]


@pytest.fixture(scope="session")
def one_weight():
    """A site of one weight, whose loss is half the squared distance to a target: a step goes half the way."""

    def site(name, target, cases=1, lr=0.5, momentum=0.0, epochs=1):
        batch = {"image": torch.ones(1, 1, 1), "label": torch.tensor([[[target]]])}
        return Site(
            name=name,
            network=Segmenter(OneWeight(), ["level"], ["level"], in_channels=1, spatial_dims=1),
            batches=lambda seed: [batch],
            cases=cases,
            criterion=lambda logits, label: 0.5 * (logits - label).square().mean(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr, momentum),
            scores=lambda network: {},
            epochs=epochs,
        )

    return site


@pytest.fixture(scope="session")
def hospitals():
    """Three sites with random images that share a small U-Net, which has the layers that any method may want."""

    def build(dims=2, lr=0.1, momentum=0.5, device="cpu", precision="float32", **network):
        torch.manual_seed(0)
        layers = {"context": {"width": 4}, "harmonize": {}}
        unet = build_segmenter("BasicUNet", dims, 1, 2, [8] * 5, **(layers | network))
        compute = Compute(device, precision)
        compute.place(unet)
        return [
            Site(
                name=name,
                network=unet,
                batches=lambda seed, brightness=0.1 * number: random_batches(brightness, seed, dims),
                cases=2 * number,
                criterion=DiceCELoss(softmax=True, to_onehot_y=True, batch=True),
                optimizer=lambda parameters: torch.optim.SGD(parameters, lr, momentum),
                scores=lambda network: {},
                compute=compute,
            )
            for number, name in enumerate(("Alder", "Birch", "Cedar"), start=1)
        ]

    return build


def random_batches(brightness, seed, dims):
    """Two batches of two images."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 1, 32, *[16] * (dims - 1))
    for _ in range(2):
        label = (torch.rand(shape, generator=generator) > 0.7).long()
        yield {"image": brightness + 0.3 * label + 0.2 * torch.rand(shape, generator=generator), "label": label}


class Run(NamedTuple):
    """What some rounds left: the server's state after each, and all updates in their order."""

    states: list[State]
    updates: list[Update]

    @property
    def weights(self):
        return self.states[-1].weights

    def values(self, name="backbone.w"):
        """One weight of the global network after each round."""
        return [state.weights[name].item() for state in self.states]

    def metric(self, name):
        """One metric of every update that has it."""
        return [update.metrics[name] for update in self.updates if name in update.metrics]


@pytest.fixture(scope="session")
def run():
    """Rounds of a method, from the start or from a state: ``run(method, sites, 2)``.

    The sites are computed in the order given, and their answers come sorted by name.
    """

    def rounds(method, sites, until, start=None):
        updates = []
        start = start or State(0, detached(sites[0].network.state_dict()), {})
        aggregator = aggregator_of(method, sites[0].network, start)
        aggregator.on_update = lambda _, update: updates.append(update)

        def ask(broadcast):
            return sorted((site.answer(method, broadcast) for site in sites), key=lambda update: update.site)

        return Run(list(aggregator.rounds(ask, until)), updates)

    return rounds


@pytest.fixture(scope="session")
def same():
    """Whether two dictionaries hold the same bits under the same names."""

    def check(first, second):
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)

    return check
