"""Reads weights of a network from files of other frameworks, and never executes them.

Start with `files`: it opens safetensors, npz and both torch formats. `names` converts
foreign names of tensors to ours, `hub` downloads files, `metadata` reads descriptions
beside the weights, and `other_kinds` describes files that hold no weights.
"""
