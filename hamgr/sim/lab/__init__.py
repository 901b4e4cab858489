"""The election lab: protocols of the field side by side in one simulated world. docs/elections.md."""
