"""Reads weights of a network from files of other frameworks, and never runs them.

`files` is where to start: it opens safetensors, npz and both torch formats; `names`
turns the tensors' foreign names into ours; `hub` fetches files; `metadata` reads what
is said beside them; `other_kinds` names what is no file of weights.
"""
