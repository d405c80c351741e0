"""What must hold before a run may start."""

import pytest

from imagenette.config import resolve
from imagenette.errors import InputError
from imagenette.training.readiness import check_batches, check_config, check_processes


def test_a_batch_that_does_not_divide_is_refused_in_words():
    with pytest.raises(
        InputError, match=r"^batch_size=7 does not divide over 2 processes: .* multiple of 2$"
    ):
        check_processes(resolve({"batch_size": 7}), 2)


@pytest.mark.parametrize(
    ("knobs", "images", "world_size", "complaint"),
    [
        ({"batch_size": 64, "size": 32, "drop_last": False}, 65, 1, "no variance"),
        ({"batch_size": 1, "size": 32}, 100, 1, "no variance"),
        ({"batch_size": 8, "size": 32}, 100, 8, "no variance"),
        ({"batch_size": 64, "drop_last": False}, 67, 4, "fewer than the 4 processes"),
    ],
)
def test_a_step_that_batch_norm_could_not_take_is_refused(knobs, images, world_size, complaint):
    with pytest.raises(InputError, match=complaint):
        check_batches(resolve(knobs), images=images, world_size=world_size)


@pytest.mark.parametrize(
    ("knobs", "images", "world_size"),
    [
        ({"batch_size": 64, "size": 32}, 65, 1),  # the last single image is left out
        ({"batch_size": 64, "size": 64, "drop_last": False}, 65, 1),  # 2 x 2 px have a variance
        ({"batch_size": 64, "drop_last": False}, 40, 1),
        ({"batch_size": 2, "size": 64}, 40, 2),
    ],
)
def test_what_batch_norm_can_take_is_not(knobs, images, world_size):
    check_batches(resolve(knobs), images=images, world_size=world_size)


@pytest.mark.parametrize(
    ("knobs", "complaint"),
    [
        ({"architecture": "resnet27d"}, r"^architecture=resnet27d: must be .* \(resnet26d"),
        (
            {"architecture": "vit_tiny_patch16_224", "size": 64},
            "^architecture=vit_tiny_patch16_224: it takes no pictures of 64 x 64 px; "
            "it is made for 224: --size 224 --start-size 0$",
        ),
    ],
)
def test_a_network_that_there_is_not_or_for_other_pictures_is_refused_without_the_data(knobs, complaint):
    with pytest.raises(InputError, match=complaint):
        check_config(resolve(knobs))
