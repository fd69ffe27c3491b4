"""What a trained model is measured with: validation loss, sampling, feature networks and distances."""
