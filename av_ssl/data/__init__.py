"""From a manifest to batches.

`reading` turns files into arrays, `noise` adds noise, and `clip_reader` makes a sample of a clip. `labels`,
`text` and `classes` read labels, `masking` draws masks, `dataset` and `collate` make batches.
"""
