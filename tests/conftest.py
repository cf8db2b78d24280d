"""One compute thread: the tensors of the tests are small, and several tests may run beside each other."""

import torch

torch.set_num_threads(1)
