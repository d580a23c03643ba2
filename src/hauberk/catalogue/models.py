"""Networks."""

from hauberk.catalogue.entry import Family

FAMILY = Family("model")

FAMILY.add("small_cnn", "hauberk.models.small_cnn:small_cnn", "3x3 convolutions with batch norm and ReLU")
FAMILY.add("resnet18", "hauberk.models.resnet:resnet18", "ResNet-18 with a 3x3 stem for small images", "He et al. 2016")
FAMILY.add(
    "lip_convnet", "hauberk.models.lip_convnet:lip_convnet", "1-Lipschitz AOL convolutions with MaxMin",
    "Prach & Lampert 2022",
)  # fmt: skip
FAMILY.add(
    "lip_mlp", "hauberk.models.lip_mlp:lip_mlp", "orthogonal dense layers with MaxMin, for small images",
    "Anil et al. 2019; Trockman & Kolter 2021",
)  # fmt: skip
FAMILY.add(
    "lip_convnet_n", "hauberk.models.lip_convnet_n:lip_convnet_n",
    "LipConvnet-5 to 40: SOC or other 1-Lipschitz convolutions", "Singla & Feizi 2021; Singla et al. 2022",
)  # fmt: skip
FAMILY.add(
    "li_resnet", "hauberk.models.li_resnet:li_resnet", "linear residual convolutions, trained against their bound",
    "Hu et al. 2023",
)  # fmt: skip
FAMILY.add(
    "cnn_6c2f", "hauberk.models.cnn_6c2f:cnn_6c2f",
    "six plain convolutions and two dense layers, trained against their bound", "Leino et al. 2021",
)  # fmt: skip
FAMILY.add(
    "lip_mlp_n", "hauberk.models.lip_mlp_n:lip_mlp_n", "dense layers of splines, SLL, CPL or sandwich layers",
    "Ducotterd et al. 2024; Araujo et al. 2023; Meunier et al. 2022; Wang & Manchester 2023",
)  # fmt: skip
FAMILY.add(
    "lip_resnet", "hauberk.models.lip_resnet:lip_resnet", "residual convolutions of SLL or CPL layers",
    "Araujo et al. 2023; Meunier et al. 2022",
)  # fmt: skip
FAMILY.add(
    "one_hidden_layer", "hauberk.models.one_hidden_layer:one_hidden_layer",
    "one hidden layer of ReLU with semidefinite dual bounds in Linf", "Raghunathan et al. 2018",
)  # fmt: skip
FAMILY.add(
    "hycas_net", "hauberk.models.hycas_net:hycas_net",
    "hybrid convolutions with random attention, at most 1- or 2-Lipschitz", "Dhar et al. 2026",
)  # fmt: skip
FAMILY.add(
    "dncnn", "hauberk.models.dncnn:dncnn", "a denoiser that predicts the noise, a part of denoised",
    "Zhang et al. 2017",
)  # fmt: skip
FAMILY.add(
    "dunet", "hauberk.models.dunet:dunet", "a U-Net denoiser, a part of guided_denoiser", "Liao et al. 2018",
)  # fmt: skip
FAMILY.add(
    "one_step_diffusion", "hauberk.models.one_step_diffusion:one_step_diffusion",
    "a diffusers UNet as a denoiser, in one step, a part of denoised", "Carlini et al. 2023",
)  # fmt: skip
FAMILY.add(
    "diffusion_unet", "hauberk.models.diffusion:diffusion_unet",
    "a diffusion model around a diffusers UNet, which makes images", "Ho et al. 2020",
)  # fmt: skip
FAMILY.add(
    "diffusion_mlp", "hauberk.models.diffusion_mlp:diffusion_mlp",
    "a diffusion model of small images around dense layers", "Ho et al. 2020",
)  # fmt: skip
FAMILY.add("own", "hauberk.models.own:own", "a model of your own, from module:factory")
FAMILY.add("run", "hauberk.runs:saved", "the trained model of a run directory")
