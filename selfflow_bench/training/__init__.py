"""The bundled trainer. Knows families and methods only through their base classes."""
