"""Grad-CAM through the epochs: what a run's network looks at, and how far that moves.

`run` is a whole run's job and `photos` a photo's of one's own; `choices` say what they look at,
`maps` explains it, and `drift` compares it by `measures`. Nothing here imports Keras before a
network is needed.
"""
