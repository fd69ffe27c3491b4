"""Pretrained networks that ship in registry packages: their weights checked, and run by ONNX Runtime."""
