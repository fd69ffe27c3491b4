"""What several families share: each file is named after what it holds."""
