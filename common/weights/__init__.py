"""Reads arrays by name from files of weights, and never executes them.

Start with `files`: it opens safetensors, npz and both torch formats. `wrappers` removes
modules that wrap a network from the names, and `other_kinds` describes files that hold
no weights. Nothing here knows a network; `acq.weights` and `ipv2.models` do.
"""
