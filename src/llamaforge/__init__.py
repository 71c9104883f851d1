"""LlamaForge: the Linux machines you own as one persistent training cluster for Llama models.

Importing this package does nothing; every room below is imported by the verb that needs it, and
only `llamaforge.train` imports torch.
"""

__version__ = "0.1.0"
