"""Small tensors: one thread is fastest, and fair to the tests that run beside these."""

import torch

torch.set_num_threads(1)
