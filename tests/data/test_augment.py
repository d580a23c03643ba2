import pytest
import torch
from pydantic import ValidationError

from hauberk.data import Augmentation, cutout, random_crop, random_flip
from hauberk.errors import HauberkError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(rows=16, channels=3, height=5, width=7):
    return torch.rand(rows, channels, height, width, generator=generator(99)) + 0.01  # no black pixel


def shifts(image, padding):
    """Every crop of the padded image, by loops over pixels."""
    height, width = image.shape[1:]
    crops = {}
    for u in range(2 * padding + 1):
        for v in range(2 * padding + 1):
            crop = torch.zeros_like(image)
            for i in range(height):
                for j in range(width):
                    y, x = i + u - padding, j + v - padding
                    if 0 <= y < height and 0 <= x < width:
                        crop[:, i, j] = image[:, y, x]
            crops[u, v] = crop
    return crops


def test_every_row_is_one_of_its_shifts():
    source = images()
    for image, result in zip(source, random_crop(source, 2, generator()), strict=True):
        assert sum(torch.equal(result, crop) for crop in shifts(image, 2).values()) == 1


def test_all_shifts_are_equally_likely():
    image = images(1)
    result = random_crop(image.expand(9000, -1, -1, -1), 1, generator())
    counts = [int((result == crop).flatten(1).all(1).sum()) for crop in shifts(image[0], 1).values()]
    assert sum(counts) == 9000
    chi_square = sum((c - 1000) ** 2 / 1000 for c in counts)
    assert chi_square < 26.1  # the 0.999 quantile with 8 degrees of freedom


def test_flip_mirrors_about_half():
    source = images(4000, 1, 2, 3)
    result = random_flip(source, generator())
    mirrored = (result == source.flip(3)).flatten(1).all(1)
    same = (result == source).flatten(1).all(1)
    assert bool((mirrored ^ same).all())
    assert abs(int(mirrored.sum()) - 2000) < 4 * 32  # four standard deviations


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_memory_format_and_type_are_kept(layout, kind):
    source = images().to(kind).contiguous(memory_format=layout)
    plain = images().to(kind)
    for change in (lambda x: random_crop(x, 2, generator()), lambda x: random_flip(x, generator())):
        result = change(source)
        assert result.is_contiguous(memory_format=layout)
        assert result.dtype == kind
        assert result.stride() == source.stride()
        assert torch.equal(result, change(plain))  # the layout never changes the values


def test_the_source_is_left_alone():
    source = images()
    before = source.clone()
    Augmentation(crop=2, flip=True)(source, generator()).zero_()
    assert torch.equal(source, before)


def test_only_the_generator_decides():
    augmentation = Augmentation(crop=2, flip=True)
    first = augmentation(images(), generator(1))
    torch.manual_seed(5)
    assert torch.equal(first, augmentation(images(), generator(1)))
    assert not torch.equal(first, augmentation(images(), generator(2)))
    own = generator(1)
    augmentation(images(), own)
    assert not torch.equal(first, augmentation(images(), own))


def test_augmentation_is_crop_then_flip():
    one, two = generator(3), generator(3)
    expected = random_flip(random_crop(images(), 2, one), one)
    assert torch.equal(Augmentation(crop=2, flip=True)(images(), two), expected)


def test_nothing_asked_nothing_done():
    own = generator()
    source = images()
    assert Augmentation()(source, own) is source
    assert torch.equal(own.get_state(), generator().get_state())


def test_zero_padding_and_empty_batches():
    assert torch.equal(random_crop(images(), 0, generator()), images())
    assert random_crop(images(0), 2, generator()).shape == (0, 3, 5, 7)
    assert random_flip(images(0), generator()).shape == (0, 3, 5, 7)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 4, 4)])
def test_wrong_batches_are_refused(bad):
    for change in (lambda x: random_crop(x, 1, generator()), lambda x: random_flip(x, generator())):
        with pytest.raises(HauberkError, match="expected float images"):
            change(bad)


def test_configuration():
    assert Augmentation(4, True) == Augmentation(crop=4, flip=True)
    for wrong in ({"crop": -1}, {"crop": 1.5}, {"zoom": 2}):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)


def squares(height, width, side):
    """Every mask that a square around a pixel leaves, by loops."""
    masks = set()
    for y in range(height):
        for x in range(width):
            rows, columns = (range(c - side // 2, c - side // 2 + side) for c in (y, x))
            masks.add(tuple((i in rows and j in columns) for i in range(height) for j in range(width)))
    return masks


@pytest.mark.parametrize("side", [1, 2, 3, 20])
def test_a_black_square_is_cut_around_a_pixel_of_each_image(side):
    source = images(rows=400)
    result = cutout(source, side, generator())
    black = (result == 0).all(1)
    assert torch.equal(result, torch.where(black[:, None], 0.0, source))
    assert {tuple(mask.flatten().tolist()) for mask in black} == squares(5, 7, side)


def test_squares_are_cut_after_their_share_of_training():
    augment = Augmentation(cutout=2, cutout_from=0.5)
    early, late = (augment(images(), generator(), progress) for progress in (0.49, 0.5))
    assert torch.equal(early, images())
    assert torch.equal(late, cutout(images(), 2, generator()))


def test_squares_come_after_the_crop_and_checkpoints_name_them():
    augment = Augmentation(crop=1, flip=True, cutout=3)
    shared = generator()
    wanted = cutout(random_flip(random_crop(images(), 1, shared), shared), 3, shared)
    assert torch.equal(augment(images(), generator()), wanted)
    assert str(augment) == "Augmentation(crop=1, flip=True, cutout=3, cutout_from=0.0)"
    assert str(Augmentation(crop=1)) == "Augmentation(crop=1, flip=False)"
