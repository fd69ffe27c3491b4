"""Independent per-token-row forwards, one module a family.

Built otherwise than the product: no stand-in, no levels; the modulation runs once per token, as other trainers do it.
"""
