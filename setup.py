"""The packages, with a page's style and scripts, and the network that ships.

See pyproject.toml. The network is a part of ipv2.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["acq*", "common*", "ipv2*"]), "ipv2.weights"],
    package_dir={"ipv2.weights": "weights"},
    package_data={"common.report": ["*.css", "*.js"], "ipv2.weights": ["**"]},
)
