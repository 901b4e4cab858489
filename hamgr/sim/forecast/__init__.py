"""What a configuration will give in an environment: failovers by cause, per year. docs/simulate.md."""
