"""Images with labels, in three splits."""

from hauberk.catalogue.entry import Family

FAMILY = Family("dataset")

FAMILY.add(
    "digits", "hauberk.data.digits:digits", "8x8 grey digits, embedded in scikit-learn", "Alpaydin & Kaynak 1998",
)  # fmt: skip
FAMILY.add("cifar10", "hauberk.data.cifar:cifar10", "32x32 colour, 10 classes", "Krizhevsky 2009")
FAMILY.add("cifar100", "hauberk.data.cifar:cifar100", "32x32 colour, 100 classes", "Krizhevsky 2009")
FAMILY.add("mnist", "hauberk.data.idx:mnist", "28x28 grey digits", "LeCun et al. 1998")
FAMILY.add("fashion_mnist", "hauberk.data.idx:fashion_mnist", "28x28 grey clothes", "Xiao et al. 2017")
FAMILY.add("medmnist", "hauberk.data.medmnist:medmnist", "any MedMNIST set, by flag", "Yang et al. 2023")
FAMILY.add(
    "ham10000_28", "hauberk.data.ham10000:ham10000_28", "28x28 colour, 7 skin lesions, split by lesion",
    "Tschandl et al. 2018",
)  # fmt: skip
FAMILY.add(
    "ham10000", "hauberk.data.ham10000:ham10000", "photographs of 7 skin lesions, split by lesion, read as needed",
    "Tschandl et al. 2018",
)  # fmt: skip
FAMILY.add(
    "nih_chest_xray", "hauberk.data.nih_chest_xray:nih_chest_xray",
    "radiographs of 14 findings, by a named rule, split by patient, read as needed", "Wang et al. 2017",
)  # fmt: skip
FAMILY.add(
    "imagenet", "hauberk.data.imagenet:imagenet", "the layout of ImageNet-1k, read as needed",
    "Russakovsky et al. 2015",
)  # fmt: skip
FAMILY.add("npz", "hauberk.data.npz:npz", "arrays of your own in one .npz file")
FAMILY.add("image_folder", "hauberk.data.folder:image_folder", "one folder a class, PNG, JPEG or WebP")
FAMILY.add("calibrated", "hauberk.data.calibrated:calibrated", "another set, with a part of its test to choose on")
FAMILY.add(
    "generated", "hauberk.data.generated:generated", "another set, its training images generated ones from a file",
    "Gowal et al. 2021; Wang et al. 2023",
)  # fmt: skip
FAMILY.add(
    "gaussian_generator", "hauberk.data.gaussian_generator:gaussian_generator",
    "another set, its training images drawn from a Gaussian a class", "Gowal et al. 2021",
)  # fmt: skip
