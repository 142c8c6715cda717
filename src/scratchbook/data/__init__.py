"""From a source of images to one prepared HDF5 file: location, files and layout, content, source,
image, division, prepare.

Import the module that is needed; this package imports none of them, so that
`scratchbook.data.content` stays as quick as a Snakefile needs it.
"""
