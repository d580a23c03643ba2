"""Layers with a known Lipschitz constant; a network of one's own is made of them."""

from hauberk.catalogue.entry import Family

FAMILY = Family("layer")

FAMILY.add(
    "AOLConv2d", "hauberk.layers.aol:AOLConv2d", "a convolution whose channels are rescaled to a constant of at most 1",
    "Prach & Lampert 2022, Theorem 2",
)  # fmt: skip
FAMILY.add(
    "AOLLinear", "hauberk.layers.aol:AOLLinear",
    "a linear layer whose channels are rescaled to a constant of at most 1", "Prach & Lampert 2022, Theorem 1",
)  # fmt: skip
FAMILY.add(
    "SOCConv2d", "hauberk.layers.soc:SOCConv2d", "an orthogonal convolution by the exponential series of a skew kernel",
    "Singla & Feizi 2021",
)  # fmt: skip
FAMILY.add(
    "BCOPConv2d", "hauberk.layers.bcop:BCOPConv2d", "an orthogonal convolution made of projections", "Li et al. 2019",
)  # fmt: skip
FAMILY.add(
    "CayleyConv2d", "hauberk.layers.cayley:CayleyConv2d",
    "a circular orthogonal convolution by the Cayley transform at each frequency", "Trockman & Kolter 2021",
)  # fmt: skip
FAMILY.add(
    "CayleyLinear", "hauberk.layers.cayley:CayleyLinear", "an orthogonal linear layer by the Cayley transform",
    "Trockman & Kolter 2021",
)  # fmt: skip
FAMILY.add(
    "LOTConv2d", "hauberk.layers.lot:LOTConv2d", "the circular orthogonal convolution that is nearest to a free kernel",
    "Xu, Li & Li 2022",
)  # fmt: skip
FAMILY.add(
    "BROConv2d", "hauberk.layers.bro:BROConv2d", "a circular orthogonal convolution by block reflectors",
    "Lai et al. 2025",
)  # fmt: skip
FAMILY.add(
    "BROLinear", "hauberk.layers.bro:BROLinear", "an orthogonal linear layer by block reflectors",
    "Lai et al. 2025, Proposition 1",
)  # fmt: skip
FAMILY.add(
    "BjorckLinear", "hauberk.layers.bjorck:BjorckLinear", "an orthogonal linear layer by the Bjorck iteration",
    "Anil et al. 2019",
)  # fmt: skip
FAMILY.add("SLLConv2d", "hauberk.layers.sll:SLLConv2d", "an SDP-based residual layer", "Araujo et al. 2023")
FAMILY.add("SLLLinear", "hauberk.layers.sll:SLLLinear", "an SDP-based residual layer on vectors", "Araujo et al. 2023")
FAMILY.add("CPLConv2d", "hauberk.layers.cpl:CPLConv2d", "a convex potential layer", "Meunier et al. 2022")
FAMILY.add("CPLLinear", "hauberk.layers.cpl:CPLLinear", "a convex potential layer on vectors", "Meunier et al. 2022")
FAMILY.add(
    "SandwichConv2d", "hauberk.layers.sandwich:SandwichConv2d", "a circular convolution with its activation inside",
    "Wang & Manchester 2023",
)  # fmt: skip
FAMILY.add(
    "SandwichLinear", "hauberk.layers.sandwich:SandwichLinear", "a linear layer with its activation inside",
    "Wang & Manchester 2023",
)  # fmt: skip
FAMILY.add(
    "LiResConv2d", "hauberk.layers.li_resnet:LiResConv2d",
    "a residual connection around a convolution, as one convolution", "Hu et al. 2023",
)  # fmt: skip
FAMILY.add(
    "UnitRowLinear", "hauberk.layers.unit_rows:UnitRowLinear", "a last layer with rows of unit length",
    "Singla et al. 2022, last-layer normalisation",
)  # fmt: skip
FAMILY.add("MaxMin", "hauberk.layers.activations:MaxMin", "pairs of channels, sorted", "Anil et al. 2019")
FAMILY.add("GroupSort", "hauberk.layers.activations:GroupSort", "groups of channels, sorted", "Anil et al. 2019")
FAMILY.add("FullSort", "hauberk.layers.activations:FullSort", "all channels, sorted", "Anil et al. 2019")
FAMILY.add(
    "Householder1", "hauberk.layers.householder:Householder1",
    "a reflection beyond a learnable line, in pairs of channels", "Singla et al. 2022",
)  # fmt: skip
FAMILY.add(
    "Householder2", "hauberk.layers.householder:Householder2", "four sectors of the plane, in pairs of channels",
    "Singla et al. 2022",
)  # fmt: skip
FAMILY.add(
    "HouseholderActivation", "hauberk.layers.householder:HouseholderActivation",
    "a reflection beyond a learnable hyperplane, in groups of channels", "Singla et al. 2022",
)  # fmt: skip
FAMILY.add(
    "NActivation", "hauberk.layers.activations:NActivation", "slopes +1, -1, +1 with learnable corners",
    "Prach & Lampert 2023",
)  # fmt: skip
FAMILY.add(
    "BetaAbs", "hauberk.layers.activations:BetaAbs", "absolute values of a share of the channels", "LipNeXt 2026",
)  # fmt: skip
FAMILY.add(
    "LinearSpline", "hauberk.layers.splines:LinearSpline", "a learnable piecewise linear function of each channel",
    "Ducotterd et al. 2024",
)  # fmt: skip
FAMILY.add(
    "L2NormPool2d", "hauberk.layers.pooling:L2NormPool2d", "the Euclidean length of each window", "Boureau et al. 2010",
)  # fmt: skip
FAMILY.add("ScaledAvgPool2d", "hauberk.layers.pooling:ScaledAvgPool2d", "means of windows, scaled to the norm 1")
FAMILY.add("GlobalAveragePool", "hauberk.layers.pooling:GlobalAveragePool", "the mean of each channel")
FAMILY.add(
    "OneHiddenLayer", "hauberk.layers.one_hidden_layer:OneHiddenLayer",
    "a classifier of one hidden layer with semidefinite dual bounds in Linf", "Raghunathan et al. 2018",
)  # fmt: skip
FAMILY.add("AffineResidual", "hauberk.layers.residual:AffineResidual", "a weighted sum of input and branch")
FAMILY.add("ConvexResidual", "hauberk.layers.residual:ConvexResidual", "a mean of input and branch")
FAMILY.add(
    "Concatenation", "hauberk.layers.residual:Concatenation", "the outputs of several branches as channels of one",
)  # fmt: skip
FAMILY.add(
    "NoiseInjection", "hauberk.layers.noise_injection:NoiseInjection", "noise added to features, at test time too",
    "Liu et al. 2018, Section 3",
)  # fmt: skip
FAMILY.add("DrawMean", "hauberk.layers.draw_mean:DrawMean", "the mean of a random network over fixed public draws")
FAMILY.add("Centring", "hauberk.layers.shape:Centring", "each sample less its own mean")
FAMILY.add("BatchCentring", "hauberk.layers.shape:BatchCentring", "each channel less its mean")
FAMILY.add("PadChannels", "hauberk.layers.shape:PadChannels", "zero channels appended")
FAMILY.add("PadToMultiple", "hauberk.layers.shape:PadToMultiple", "zero rows and columns appended")
FAMILY.add("TruncateChannels", "hauberk.layers.shape:TruncateChannels", "the first channels kept")
FAMILY.add(
    "LowPass", "hauberk.layers.low_pass:LowPass", "the low frequencies of each channel, by the cosine transform",
    "Dhar et al. 2026",
)  # fmt: skip
FAMILY.add(
    "AttentionNoise", "hauberk.layers.attention_noise:AttentionNoise",
    "features times random masks whose level is learned", "Dhar et al. 2026, Lemma 1",
)  # fmt: skip
FAMILY.add(
    "RandomFilters2d", "hauberk.layers.random_filters:RandomFilters2d",
    "a convolution with filters drawn anew, of norm at most 1", "Dong & Xu 2023; Dhar et al. 2026",
)  # fmt: skip
FAMILY.add(
    "FixedConv2d", "hauberk.layers.random_filters:FixedConv2d", "a convolution whose kernel is not trained"
)  # fmt: skip
FAMILY.add(
    "ConvexGate", "hauberk.layers.gate:ConvexGate", "a mean of streams, one weight each or one for each channel",
    "Dhar et al. 2026, Proposition 4 (corrected)",
)  # fmt: skip
FAMILY.add(
    "HyCASConv2d", "hauberk.layers.hycas:HyCASConv2d",
    "three streams, a gate and random attention in the place of a convolution", "Dhar et al. 2026",
)  # fmt: skip
