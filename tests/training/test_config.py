import pytest
from pydantic import ValidationError

from hauberk.attacks.pgd import PGD
from hauberk.data import Augmentation
from hauberk.threats import Linf
from hauberk.training.config import Training


def test_a_block_of_a_recipe_becomes_the_object():
    block = {
        "epochs": 3,
        "augmentation": {"crop": 4, "flip": True},
        "validation_attack": {"name": "pgd", "threat": "linf:8/255", "steps": 10},
    }
    expected = Training(
        epochs=3, augmentation=Augmentation(crop=4, flip=True), validation_attack=PGD(Linf(8 / 255), steps=10)
    )
    assert Training(**block) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": 3}, {"epochs": 0}, {"lr": -1}, {"ema": 1.0}, {"warmup": 1.0}, {"schedule": "linear"},
        {"precision": "float16"}, {"momentum": 0.0, "nesterov": True}, {"patience": 2, "validate_every": 0},
        {"gap_images": 5}, {"collapse": 0.1},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Training(**wrong)
