"""The packages, and the network that ships, as a part of ipv2. See pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["acq*", "common*", "ipv2*"]), "ipv2.weights"],
    package_dir={"ipv2.weights": "weights"},
    package_data={"ipv2.weights": ["**"]},
)
