"""Kinds of numbers in OpenVINO's convolutions."""

from collections import Counter


def precisions(network):
    """Returns how many convolutions of a compiled network take each kind of numbers."""
    nodes = network.get_runtime_model().get_ops()
    about = [node.get_rt_info() for node in nodes]
    return Counter(
        one["runtimePrecision"].astype(str)
        for one in about
        if one["layerType"].astype(str) == "Convolution"
    )
