"""From a source of images to one prepared HDF5 file: location, source, image, division, prepare.

Import the module that is needed; this package imports none of them, so that
`scratchbook.data.location` stays as quick as a Snakefile needs it.
"""
