"""Images and labels: what classifiers are evaluated on, and the embedded digits.

`opening` goes from a config to `eval_data.EvalData`; each source of images is a module
of its own.
"""
