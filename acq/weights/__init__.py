"""Makes variables of our classifiers from weights of other frameworks.

`common.weights` reads the files. `names` converts foreign names of tensors to ours,
`hub` downloads files, `metadata` reads descriptions beside the weights, and
`statistics` refuses batch normalisation that saw no data.
"""
