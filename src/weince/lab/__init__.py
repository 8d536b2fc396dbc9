"""The lab: train encoders with two losses alike, freeze them, and report which features are better."""
