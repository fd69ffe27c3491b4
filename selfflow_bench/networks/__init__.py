"""Pretrained networks, of packages, of files and of the hub: their weights checked, and what runs them."""
