"""Models of a user's own, most of them wrong in some way: what the tests of misuse name as ``my_nets:...``."""

import warnings

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, outputs=10, after=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))
        self.after = after

    def forward(self, images):
        logits = self.body(images)
        return logits if self.after is None else self.after(logits)


class Inference(Net):
    @torch.inference_mode()
    def forward(self, images):
        return self.body(images)


class Cut(Net):
    def forward(self, images):
        return self.body(images.detach())


class Fails(Net):
    def forward(self, images):
        return self.body(images) + self.bias


class Late(Net):
    def forward(self, images):
        if images.requires_grad:
            raise ValueError("no gradients here")
        return self.body(images)


class Crowd(Net):
    def forward(self, images):
        return self.body(images - images.mean(0) if len(images) > 40 else images)


class Two(Net):
    def forward(self, images):
        return self.body(images) * (0 if images.requires_grad else 1)


class Leaves(Net):
    def forward(self, images):
        raise SystemExit(3)


class Needs(nn.Module):
    def __init__(self, width, depth):
        super().__init__()


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


model = Net()
number = 5
good = Net
AFTER = {
    "pair": lambda z: (z, z),
    "named": lambda z: {"logits": z},
    "listed": lambda z: [z],
    "nothing": lambda z: None,
    "array": lambda z: z.detach().numpy(),
    "classes": lambda z: z.argmax(1),
    "whole": lambda z: (100 * z).long(),
    "narrow_logits": lambda z: z.bfloat16(),
    "wide_logits": lambda z: z.double(),
    "chances": lambda z: z.softmax(1),
    "nans": lambda z: z * float("nan"),
    "first": lambda z: z[:1],
    "detached": lambda z: z.detach(),
}
globals().update({name: (lambda after=after: Net(after=after)) for name, after in AFTER.items()})


def channels():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 10))


def large():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def on_meta():
    return Net().to("meta")


def precise():
    return Net().double()


def brain():
    return Net().bfloat16()


def quantised():
    net = plain().eval()
    state = net.state_dict
    net.state_dict = lambda *a, **k: state(*a, **k) | {"1._packed_params": (net[1].weight, net[1].bias)}
    return net


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(plain())


def twenty():
    return Net(20)


def five():
    return Net(5)


def single():
    return Net(1)


def needs(depth, width=3):
    return Net()


def broken():
    return Net(outputs=1 // 0)


def missing():
    return torch.load("nowhere.pt")


def prefixed():
    net = Net()
    net.load_state_dict({f"module.{key}": value for key, value in net.state_dict().items()})
    return net


def foreign():
    net = Net()
    net.load_state_dict({"other": torch.zeros(1)})
    return net


def quits():
    raise SystemExit(3)


def state():
    return Net().state_dict()


def two():
    return Net(), Net()


def function():
    return lambda images: images
