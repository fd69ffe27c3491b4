"""Models that diffusers has no class for, built of its parts."""
