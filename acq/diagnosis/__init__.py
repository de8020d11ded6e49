"""Measures a generator's samples, and reports them in words and pictures.

`measuring` measures samples, `diagnosis` holds the results, `complaints` describes
problems, and `pictures` draws samples.
"""
