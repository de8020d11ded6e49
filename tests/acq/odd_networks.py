"""Networks outside the zoo: a small accepted one, and some that are refused."""

import flax.linen as nn
import jax.numpy as jnp

from acq.layers.float import Layers


class Small(nn.Module):
    layers: Layers
    classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        x = make.conv(self.width, 3, strides=2, padding=1, name="stem")(x)
        x = make.batch_norm(name="norm", epsilon=1e-3)(x, train)
        x = make.activation("relu", name="act")(x)
        return make.dense(self.classes, name="out")(jnp.mean(x, (1, 2))), x


class WithoutNorm(Small):
    @nn.compact
    def __call__(self, x, train=False):
        x = self.layers.conv(self.width, 3, padding=1, name="stem")(x)
        x = self.layers.activation("relu", name="act")(x)
        return self.layers.dense(self.classes, name="out")(jnp.mean(x, (1, 2))), x


class OnlyPairs(Small):
    """Takes one or two images, as the check of networks gives it."""

    @nn.compact
    def __call__(self, x, train=False):
        if x.shape[0] > 2:
            raise RuntimeError("more than two images")
        return Small(self.layers, self.classes, name="inner")(x, train)


class LogitsOnly(Small):
    @nn.compact
    def __call__(self, x, train=False):
        return Small(self.layers, self.classes, name="inner")(x, train)[0]


class FlatFeatures(Small):
    @nn.compact
    def __call__(self, x, train=False):
        logits, x = Small(self.layers, self.classes, name="inner")(x, train)
        return logits, jnp.mean(x, (1, 2))


class OtherClasses(Small):
    @nn.compact
    def __call__(self, x, train=False):
        return Small(self.layers, self.classes + 1, name="inner")(x, train)


class FlaxConvolution(Small):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(self.width, (3, 3), name="hidden")(x)
        return Small(self.layers, self.classes, name="inner")(x, train)


class FlaxNorm(Small):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(not train, name="hidden")(x)
        return Small(self.layers, self.classes, name="inner")(x, train)


class FlaxActivation(Small):
    @nn.compact
    def __call__(self, x, train=False):
        x = self.layers.conv(self.width, 3, padding=1, name="stem")(x)
        x = nn.relu(self.layers.batch_norm(name="norm")(x, train))
        return self.layers.dense(self.classes, name="out")(jnp.mean(x, (1, 2))), x


class WithoutTrain(Small):
    @nn.compact
    def __call__(self, x):
        return Small(self.layers, self.classes, name="inner")(x)


class WithoutLayers(nn.Module):
    classes: int


class NeedsMore(nn.Module):
    layers: Layers
    classes: int
    depth: int


class Misnamed(Small):
    """The names of its layers suggest the opposite of their order."""

    @nn.compact
    def __call__(self, x, train=False):
        make = self.layers
        # Made first and called last.
        fc = make.dense(self.classes, name="conv1")
        x = make.activation("identity", name="pooled")(x)
        x = make.conv(self.width, 3, strides=2, padding=1, name="fc")(x)
        x = make.batch_norm(name="norm")(x, train)
        x = features = make.activation("relu", name="z")(x)
        x = make.dense(6, name="last")(jnp.mean(x, (1, 2)))
        return fc(make.activation("relu", name="a")(x)), features
