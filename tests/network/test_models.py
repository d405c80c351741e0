"""The networks and their norms."""

import pytest
import torch
import torchvision

from imagenette.config import OWN
from imagenette.errors import InputError
from imagenette.network import models
from imagenette.network.norm import GroupedBatchNorm, groups

PARAMETERS = {18: 11_181_642, 34: 21_289_802, 50: 23_528_522, 101: 42_520_650, 152: 58_164_298}
"""Of torchvision's networks with ten classes."""


def test_every_architecture_of_our_own_has_a_builder():
    assert tuple(models.FAMILIES) == OWN


@pytest.mark.parametrize("depth", models.LAYERS)
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


@pytest.mark.parametrize("name", ["resnet18", "xresnet18", "xresnet50-silu", "timm/resnet10t-gelu"])
def test_a_saved_name_gives_the_network_back(name):
    known = models.by_name(name, classes=7)
    family, _, activation = name.partition("-")
    depth = int(family[-2:]) if "/" not in family else 18
    architecture = family.removeprefix("timm/") if "/" in family else family[:-2]
    built = models.build(
        depth, classes=7, seed=3, architecture=architecture, activation=activation or "relu", zero_init=True
    )
    known.load_state_dict(built.state_dict())
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        logits = known.eval()(images)
        assert logits.shape == (2, 7)
        torch.testing.assert_close(logits, built.eval()(images))


def test_xresnet_normalizes_as_asked():
    net = models.build(18, classes=4, seed=0, architecture="xresnet", bn_group=8)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) > 20
    assert all(isinstance(norm, GroupedBatchNorm) and norm.group == 8 for norm in norms)


def test_an_unknown_architecture_is_one_line_with_its_neighbours():
    for name in ("resnet26x", "timm/resnet26x", "resnet19"):
        with pytest.raises(InputError, match=r"^architecture.*resnet") as error:
            models.by_name(name, classes=2) if "/" in name or name == "resnet19" else models.check(name)
        assert "\n" not in str(error.value)
    models.check("resnet10t", sizes={64, 128})
    with pytest.raises(
        InputError, match="architecture=vit_tiny_patch16_224: it takes no pictures of 128 x 128"
    ):
        models.check("vit_tiny_patch16_224", sizes={128, 224})
    with pytest.raises(InputError, match="activation=mish: architecture=dla34 has its own"):
        models.build(18, classes=2, seed=0, architecture="dla34", activation="mish")


def test_a_blur_is_timms():
    x = torch.randn(2, 5, 14, 16, generator=torch.Generator().manual_seed(0))
    from timm.layers.blur_pool import BlurPool2d

    torch.testing.assert_close(models.Blur(5, 2)(x), BlurPool2d(5, stride=2)(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert models.Blur(5, 2)(x.bfloat16()).dtype == torch.bfloat16
