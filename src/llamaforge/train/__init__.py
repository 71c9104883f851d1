"""The engine: turns a job and a bundle into trained weights. The only room that imports torch.

Nothing imports this room; it is entered by starting one of its modules as a process.
"""
