"""What several published pipelines share."""
