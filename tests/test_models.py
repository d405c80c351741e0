"""The networks and their norms."""

import pytest
import torch
import torchvision

from imagenette import models
from imagenette.norm import GroupedBatchNorm, groups

PARAMETERS = {18: 11_181_642, 34: 21_289_802, 50: 23_528_522, 101: 42_520_650, 152: 58_164_298}
"""Of torchvision's networks with ten classes."""


@pytest.mark.parametrize("depth", models.BUILDERS)
def test_depths_have_the_published_sizes(depth):
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    assert models.parameter_count(reference) == PARAMETERS[depth]
    if depth <= 50:
        assert models.parameter_count(models.build(depth, classes=10, seed=0)) == PARAMETERS[depth]


def test_the_seed_alone_decides_the_weights():
    state = torch.get_rng_state()
    first, again, other = (models.build(18, classes=10, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert torch.equal(state, torch.get_rng_state()), "building must not move the global random state"


def test_zero_init_starts_blocks_as_the_identity():
    net = models.build(18, classes=10, seed=0, zero_init=True)
    assert all(not block.bn2.weight.any() for layer in (net.layer1, net.layer4) for block in layer)


def test_grouped_norm_is_batch_norm_of_each_group_as_data_parallel_has_it():
    torch.manual_seed(0)
    x, group = torch.randn(32, 6, 5, 5) * 3 + 1, 8
    ours = GroupedBatchNorm(6)
    ours.group = group
    replicas = [torch.nn.BatchNorm2d(6) for _ in range(4)]
    expected = torch.cat([bn(part) for bn, part in zip(replicas, x.split(group), strict=True)])
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours.running_mean, replicas[0].running_mean)
    torch.testing.assert_close(ours.running_var, replicas[0].running_var)
    torch.testing.assert_close(ours.eval()(x), replicas[0].eval()(x))
    assert not torch.allclose(expected, torch.nn.BatchNorm2d(6)(x), atol=1e-3), "or this test shows nothing"


@pytest.mark.parametrize(("images", "sizes"), [(29, [8, 8, 8, 5]), (33, [8, 8, 8, 9]), (8, [8]), (1, [1])])
def test_no_group_is_left_with_one_image(images, sizes):
    assert [len(part) for part in groups(torch.zeros(images, 1), 8)] == sizes
