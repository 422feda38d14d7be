"""How far a dataset version lies from the one that the champion was trained on."""
