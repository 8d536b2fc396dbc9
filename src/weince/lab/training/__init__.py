"""From images and sentences to a trained encoder."""
