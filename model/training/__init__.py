"""The two training stages: anchoring (face encoder and SAA) and reconfiguration (IMR); paper section 3.4."""
