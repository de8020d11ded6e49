"""Task purify: a folder of pairs in, a folder of purified pairs out.

Reads `root/lq` and `root/gt`, and writes `output/lq_bar`, `output/gt_bar` and
`output/lung_mask` under the input's names and in its format.
"""
