"""The float classifier that is to be quantized, wherever it comes from.

`opening` is where to start; `loading` reads weights, `training` trains the embedded
default, `own_network` takes networks that are not ours. `advice` says which network a
file is of, `stated` holds the config to what is said of it, `identity` a run to its
teacher.
"""
