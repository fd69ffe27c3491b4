"""Real data for every modality: sources, lossless codecs, caption encoding, preparation.

Importing this package imports neither torch nor datasets; the modules inside it do.
"""
