"""A job under plain torchrun: meeting, shipping, training on rank 0's side and the worker's."""
