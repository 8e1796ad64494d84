"""One thread a worker: more would only wait for one another on small matrices."""

import torch

torch.set_num_threads(1)
