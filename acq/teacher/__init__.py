"""The teacher: the float classifier to quantize, from any source.

Start with `opening`. `loading` reads weights, `digits_training` trains the embedded
default, and `own_network` loads the user's networks. `advice` finds the network of a
file, `stated` compares metadata with the config, and `identity` makes a run keep its
teacher.
"""
